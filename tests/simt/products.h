#pragma once

#include <random>
#include <vector>

// Products of matrices for the tests of cuBLAS and cuBLASLt.
namespace simt {

inline constexpr float kTimesOne = 1, kTimesZero = 0;

inline std::vector<float> random_floats(std::size_t size, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<float> values(size);
  for (float& v : values) v = static_cast<float>(static_cast<int>(random() % 17) - 8) / 4;
  return values;
}

// The columns of op(A) op(B), both stored by columns without gaps.
inline std::vector<double> product(const std::vector<float>& a, bool ta,
                                   const std::vector<float>& b, bool tb, int m, int n, int k) {
  std::vector<double> c(static_cast<std::size_t>(m) * n);
  for (int i = 0; i < m; ++i) {
    for (int j = 0; j < n; ++j) {
      for (int x = 0; x < k; ++x) {
        c[j * m + i] += double{a[ta ? i * k + x : x * m + i]} * b[tb ? x * n + j : j * k + x];
      }
    }
  }
  return c;
}

}  // namespace simt
