#pragma once

#include <array>
#include <cstdint>

namespace serrate {

inline constexpr std::array<std::uint32_t, 2> kPhiloxFactors{0xD2511F53u, 0xCD9E8D57u};
inline constexpr std::array<std::uint32_t, 2> kPhiloxKeySteps{0x9E3779B9u, 0xBB67AE85u};

/// Philox4x32-10 (Salmon et al., SC'11): 128 random bits that are a function of a 128-bit counter
/// and a 64-bit key alone, so the order and the rank of the call do not matter.
constexpr std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                                  std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{kPhiloxFactors[0]} * counter[0];
    const std::uint64_t b = std::uint64_t{kPhiloxFactors[1]} * counter[2];
    counter = {
        static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(b),
        static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(a)};
    key[0] += kPhiloxKeySteps[0];
    key[1] += kPhiloxKeySteps[1];
  }
  return counter;
}

/// What a stream of random numbers is for: keeps the uses of one seed apart.
enum class RandomUse : std::uint32_t {
  kInit = 1,
  kShuffle = 2,
  kNegatives = 3,
  kDropout = 4,
  kGenerate = 5,
  kRounding = 6
};

/// 64 random bits for element `index` of stream (seed, use, stream).
inline std::uint64_t random_bits(std::uint64_t seed, RandomUse use, std::uint32_t stream,
                                 std::uint64_t index) {
  const auto r =
      philox4x32({static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32),
                  stream, static_cast<std::uint32_t>(use)},
                 {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
  return std::uint64_t{r[0]} << 32 | r[1];
}

/// Uniform in [0, 1), 53 bits.
inline double random_uniform(std::uint64_t seed, RandomUse use, std::uint32_t stream,
                             std::uint64_t index) {
  return static_cast<double>(random_bits(seed, use, stream, index) >> 11) * 0x1.0p-53;
}

/// 128-bit products; __extension__ because ISO C++ has no such type.
__extension__ using Uint128 = unsigned __int128;

/// Uniform in [0, bound), bound > 0, by multiplication (Lemire 2019, without the rejection step:
/// off from uniform by less than bound / 2^64).
inline std::int64_t random_below(std::uint64_t seed, RandomUse use, std::uint32_t stream,
                                 std::uint64_t index, std::int64_t bound) {
  return static_cast<std::int64_t>(static_cast<Uint128>(random_bits(seed, use, stream, index)) *
                                       static_cast<Uint128>(bound) >>
                                   64);
}

}  // namespace serrate
