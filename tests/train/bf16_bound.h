#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <vector>

namespace serrate {

inline double length(const std::vector<double>& x) {
  return std::sqrt(std::inner_product(x.begin(), x.end(), x.begin(), 0.0));
}
inline double distance(std::vector<double> x, const std::vector<double>& y) {
  for (std::size_t i = 0; i < x.size(); ++i) x[i] -= y[i];
  return length(x);
}

/// An estimate of what the roundings of a model in bf16 do to a gradient, relative to its length;
/// no bound of the worst case, in which they add up. On its way it meets 22 of a block: 8 stored
/// activations, attention's weights and 4 matrices forward, 8 stored gradients and attention's of
/// the scores backward; and 4 of the head: hidden states and negatives, the exponentials and once
/// more one of the two backward. One is by at most u = 2^-8 of an element, and if errors are
/// independent and spread evenly, by u / sqrt(3) of a vector's length; those of many add up in
/// their squares.
inline double bf16_bound(std::int64_t num_blocks) {
  return std::sqrt((22.0 * static_cast<double>(num_blocks) + 4) / 3) * 0x1p-8;
}

/// Likewise in tf32, which stores nothing: each of the 6 products of a block forward, of the 6 that
/// a gradient takes backward, and of the 2 of the head has two factors, cut to 11 bits or rounded,
/// by at most 2^-10 of an element.
inline double tf32_bound(std::int64_t num_blocks) {
  return std::sqrt((24.0 * static_cast<double>(num_blocks) + 4) / 3) * 0x1p-10;
}

}  // namespace serrate
