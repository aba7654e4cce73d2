#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "serrate/random.h"

namespace serrate {

struct PhiloxWords {
  std::uint32_t word[4];
};

/// philox4x32 of random.h, on a device.
__device__ inline PhiloxWords philox(PhiloxWords counter, std::uint32_t key0, std::uint32_t key1) {
  constexpr std::uint64_t kFactor0 = kPhiloxFactors[0], kFactor1 = kPhiloxFactors[1];
  constexpr std::uint32_t kStep0 = kPhiloxKeySteps[0], kStep1 = kPhiloxKeySteps[1];
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = kFactor0 * counter.word[0], b = kFactor1 * counter.word[2];
    counter = {static_cast<std::uint32_t>(b >> 32) ^ counter.word[1] ^ key0,
               static_cast<std::uint32_t>(b),
               static_cast<std::uint32_t>(a >> 32) ^ counter.word[3] ^ key1,
               static_cast<std::uint32_t>(a)};
    key0 += kStep0;
    key1 += kStep1;
  }
  return counter;
}

}  // namespace serrate
