#pragma once

#include <cstdint>
#include <span>

#include "serrate/kernels/attention_fp8.h"

// What both backends know of attention in e4m3.
namespace serrate {

inline constexpr float kLargestFloat8 = 448;
/// Below, blocks are 0: nothing overflows on the way.
inline constexpr float kSmallestFp8Block = 0x1p-100f;

/// Bit i is set if column 32 word + i changes its sign before rotation: pi's fraction.
constexpr std::uint32_t fp8_signs(std::int64_t word) {
  constexpr std::uint32_t kPi[kMaxHeadDim / 32] = {0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344,
                                                   0xA4093822, 0x299F31D0, 0x082EFA98, 0xEC4E6C89};
  std::uint32_t signs = 0;
  for (int i = 0; i < kMaxHeadDim / 32; ++i) signs |= i == word ? kPi[i] : 0;  // no memory on CUDA
  return signs;
}

/// 1 / sqrt(head_dim)
constexpr float hadamard_scale(std::int64_t head_dim) {
  return head_dim == 64 ? 0x1p-3f : head_dim == 128 ? 0x1.6a09e6p-4f : 0x1p-4f;
}

/// Where the scales of a sequence's blocks begin within a head's.
constexpr std::int64_t first_fp8_block(std::span<const std::int64_t> offsets,
                                       std::int64_t sequence) {
  return (offsets[sequence] - offsets[0]) / kFp8Block + sequence;
}

/// Throws unless code that was built for a compute capability, times 10, has e4m3.
void require_e4m3(int built_for);

/// Fp8Heads for code that runs where they are.
struct Fp8View {
  const Float8* values;
  std::int64_t token_stride, head_stride;
  const float* scales;
  std::int64_t scales_per_head;

  constexpr const Float8* at(std::int64_t token, std::int64_t head) const {
    return values + token * token_stride + head * head_stride;
  }
  constexpr const float* scales_of(std::int64_t head) const {
    return scales + head * scales_per_head;
  }
};
inline Fp8View view_of(const Fp8Heads& heads, std::int64_t num_heads) {
  return {heads.values.device_data, heads.values.token_stride, heads.values.head_stride,
          heads.scales.device_data(), static_cast<std::int64_t>(heads.scales.size()) / num_heads};
}

}  // namespace serrate
