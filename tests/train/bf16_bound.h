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

/// What the roundings of a model in bf16 do to a gradient, relative to its length. On its way it
/// meets n of them: 22 of a block (8 stored activations, attention's weights and 4 matrices
/// forward, 8 stored gradients and attention's of the scores backward) and 4 of the head (hidden
/// states and negatives, the exponentials and once more one of the two backward). One is by at most
/// u = 2^-8 of an element, so of a vector's length. Let nothing between two of them enlarge
/// relative errors: products spread them as they spread what they are errors of, norms divide both,
/// residuals dilute them. Were all as large as they can be, and added up, that would be n u.
/// Independent ones, spread evenly, are u / sqrt(3) of a length each and add up in their squares,
/// to sqrt(n / 3) u. That is sqrt(3 n) times less, 12 times with two blocks, so that a gradient
/// within it is within n u, too. Gradients of sasrec_reference_test are off by 0.07 to 0.43 of it,
/// and in tf32 by 0.06 to 0.59 of what follows.
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
