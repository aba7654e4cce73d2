#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <random>
#include <string_view>
#include <vector>

namespace serrate {

// The sequence lengths of the peers' scripts, drawn as PyTorch draws them (a Mersenne twister;
// 53-bit uniforms; Box-Muller over blocks of 16), so that both sides time the same batch.

/// Log-normal around longest / 8, cut to [1, longest]; batch_size a multiple of 16.
inline std::vector<std::int64_t> lognormal_lengths(std::int64_t batch_size, std::int64_t longest) {
  std::mt19937 generator(1);
  std::vector<double> uniform;
  for (std::int64_t i = 0; i < batch_size; ++i) {
    uniform.push_back((generator() & 0xFFFFFF) * 0x1.0p-24);
  }
  std::vector<std::int64_t> lengths;
  for (std::int64_t i = 0; i < batch_size; ++i) {
    const std::int64_t pair = i / 16 * 16 + i % 8;
    const double radius = std::sqrt(-2 * std::log(1 - uniform[pair]));
    const double angle = 2 * std::numbers::pi * uniform[pair + 8];
    const double normal = radius * (i % 16 < 8 ? std::cos(angle) : std::sin(angle));
    const auto length = static_cast<std::int64_t>(std::exp(normal) * (longest / 8.0));
    lengths.push_back(std::clamp<std::int64_t>(length, 1, longest));
  }
  return lengths;
}

/// Log-uniform in [1, longest], the first the longest: most sequences are short.
inline std::vector<std::int64_t> zipf_lengths(std::int64_t batch_size, std::int64_t longest) {
  std::mt19937 generator(1);
  std::vector<std::int64_t> lengths;
  for (std::int64_t i = 0; i < batch_size; ++i) {
    const std::uint64_t high = generator();
    const double uniform = ((high << 32 | generator()) & ((1ull << 53) - 1)) * 0x1.0p-53;
    const auto length = static_cast<std::int64_t>(std::pow(longest, uniform));
    lengths.push_back(std::clamp<std::int64_t>(length, 1, longest));
  }
  lengths[0] = longest;
  return lengths;
}

/// Uniform in [1, longest].
inline std::vector<std::int64_t> uniform_lengths(std::int64_t batch_size, std::int64_t longest) {
  std::mt19937 generator(1);
  std::vector<std::int64_t> lengths;
  for (std::int64_t i = 0; i < batch_size; ++i) {
    lengths.push_back(1 + static_cast<std::int64_t>(generator()) % longest);
  }
  return lengths;
}

/// Lengths of the given kind: lognormal, zipf, uniform; else fixed.
inline std::vector<std::int64_t> lengths_of(std::string_view kind, std::int64_t batch_size,
                                            std::int64_t longest) {
  if (kind == "lognormal") return lognormal_lengths(batch_size, longest);
  if (kind == "zipf") return zipf_lengths(batch_size, longest);
  if (kind == "uniform") return uniform_lengths(batch_size, longest);
  return std::vector<std::int64_t>(batch_size, longest);
}

}  // namespace serrate
