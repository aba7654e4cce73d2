#include "tests/reference/embedding.h"

#include <cmath>
#include <set>

namespace serrate::reference {
namespace {

// Calls f(bag, index, weight) for each id.
template <typename F>
void for_each_id(const Bags& bags, F f) {
  for (std::int64_t bag = 0; bag < bags.num_bags(); ++bag) {
    for (std::int64_t i = bags.offsets[bag]; i < bags.offsets[bag + 1]; ++i) {
      const std::int64_t at = i - bags.offsets[0];
      f(bag, bags.indices[at], bags.weights.empty() ? 1.0 : double{bags.weights[at]});
    }
  }
}

}  // namespace

Matrix embedding_lookup(const Matrix& table, const Bags& bags) {
  Matrix output(bags.num_bags(), table.cols);
  for_each_id(bags, [&](std::int64_t bag, std::int64_t row, double weight) {
    for (std::int64_t c = 0; c < table.cols; ++c) output(bag, c) += weight * table(row, c);
  });
  return output;
}

void add_embedding_gradient(const Bags& bags, const Matrix& d_output, Matrix& d_table) {
  for_each_id(bags, [&](std::int64_t bag, std::int64_t row, double weight) {
    for (std::int64_t c = 0; c < d_table.cols; ++c) d_table(row, c) += weight * d_output(bag, c);
  });
}

void embedding_update(const SparseOptimizerOptions& optimizer, std::int64_t step,
                      const Matrix& d_table, const std::vector<std::int64_t>& touched,
                      Parameters& parameters) {
  auto& [w, s, v] = parameters;
  const double rate = optimizer.learning_rate, eps = optimizer.eps;
  const double beta1 = optimizer.beta1, beta2 = optimizer.beta2;
  for (const std::int64_t r : std::set(touched.begin(), touched.end())) {
    double squares = 0;
    for (std::int64_t c = 0; c < w.cols; ++c) squares += d_table(r, c) * d_table(r, c);
    if (optimizer.type == SparseOptimizer::kRowWiseAdagrad) {
      s(r, 0) += squares / static_cast<double>(w.cols);
    }
    for (std::int64_t c = 0; c < w.cols; ++c) {
      const double g = d_table(r, c);
      switch (optimizer.type) {
        case SparseOptimizer::kSgd:
          w(r, c) -= rate * g;
          break;
        case SparseOptimizer::kAdagrad:
          s(r, c) += g * g;
          w(r, c) -= rate * g / (std::sqrt(s(r, c)) + eps);
          break;
        case SparseOptimizer::kRowWiseAdagrad:
          w(r, c) -= rate * g / (std::sqrt(s(r, 0)) + eps);
          break;
        case SparseOptimizer::kAdam: {
          s(r, c) = beta1 * s(r, c) + (1 - beta1) * g;
          v(r, c) = beta2 * v(r, c) + (1 - beta2) * g * g;
          const double m_hat = s(r, c) / (1 - std::pow(beta1, static_cast<double>(step)));
          const double v_hat = v(r, c) / (1 - std::pow(beta2, static_cast<double>(step)));
          w(r, c) -= rate * m_hat / (std::sqrt(v_hat) + eps);
          break;
        }
      }
    }
  }
}

}  // namespace serrate::reference
