#include "tests/reference/sharded_training.h"

#include <cmath>
#include <map>

namespace serrate::reference {

Table::Table(const EmbeddingTable& table, const SparseOptimizerOptions& options,
             std::vector<double> initial_weights)
    : definition(table),
      optimizer(options),
      weights(std::move(initial_weights)),
      state(options.type == SparseOptimizer::kRowWiseAdagrad ? table.num_rows
                                                             : table.num_rows * table.dim),
      second_moment(table.num_rows * table.dim) {}

double Table::scale(const std::vector<std::int64_t>& bag) const {
  return definition.pooling == PoolingType::kMean ? 1.0 / static_cast<double>(bag.size()) : 1.0;
}

std::vector<double> Table::lookup(const WeightedBags& bags) const {
  const std::int64_t dim = definition.dim;
  std::vector<double> output(bags.ids.size() * dim, 0.0);
  for (std::size_t b = 0; b < bags.ids.size(); ++b) {
    for (std::size_t i = 0; i < bags.ids[b].size(); ++i) {
      for (std::int64_t c = 0; c < dim; ++c) {
        output[b * dim + c] +=
            scale(bags.ids[b]) * bags.weights[b][i] * weights[bags.ids[b][i] * dim + c];
      }
    }
  }
  return output;
}

void Table::update(const std::vector<WeightedBags>& lookups,
                   const std::vector<std::vector<double>>& d_outputs, int step) {
  const std::int64_t dim = definition.dim;
  std::map<std::int64_t, std::vector<double>> gradients;
  for (std::size_t l = 0; l < lookups.size(); ++l) {
    const WeightedBags& bags = lookups[l];
    for (std::size_t b = 0; b < bags.ids.size(); ++b) {
      for (std::size_t i = 0; i < bags.ids[b].size(); ++i) {
        auto& gradient = gradients[bags.ids[b][i]];
        gradient.resize(dim);
        for (std::int64_t c = 0; c < dim; ++c) {
          gradient[c] += scale(bags.ids[b]) * bags.weights[b][i] * d_outputs[l][b * dim + c];
        }
      }
    }
  }
  for (const auto& [row, gradient] : gradients) update_row(row, gradient, step);
}

void Table::update_row(std::int64_t row, const std::vector<double>& g, int step) {
  const std::int64_t dim = definition.dim;
  const double lr = optimizer.learning_rate, eps = optimizer.eps;
  double mean_square = 0;
  for (const double x : g) mean_square += x * x / static_cast<double>(dim);
  if (optimizer.type == SparseOptimizer::kRowWiseAdagrad) state[row] += mean_square;
  for (std::int64_t c = 0; c < dim; ++c) {
    const std::int64_t i = row * dim + c;
    switch (optimizer.type) {
      case SparseOptimizer::kSgd:
        weights[i] -= lr * g[c];
        break;
      case SparseOptimizer::kAdagrad:
        state[i] += g[c] * g[c];
        weights[i] -= lr * g[c] / (std::sqrt(state[i]) + eps);
        break;
      case SparseOptimizer::kRowWiseAdagrad:
        weights[i] -= lr * g[c] / (std::sqrt(state[row]) + eps);
        break;
      case SparseOptimizer::kAdam: {
        const double beta1 = optimizer.beta1, beta2 = optimizer.beta2;
        state[i] = beta1 * state[i] + (1 - beta1) * g[c];
        second_moment[i] = beta2 * second_moment[i] + (1 - beta2) * g[c] * g[c];
        const double m = state[i] / (1 - std::pow(beta1, step));
        const double v = second_moment[i] / (1 - std::pow(beta2, step));
        weights[i] -= lr * m / (std::sqrt(v) + eps);
        break;
      }
    }
  }
}

}  // namespace serrate::reference
