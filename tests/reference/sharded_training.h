#pragma once

#include <cstdint>
#include <vector>

#include "serrate/embedding_table.h"

namespace serrate::reference {

/// Bags of ids with a weight for each (all 1 for an unweighted batch).
struct WeightedBags {
  std::vector<std::vector<std::int64_t>> ids;
  std::vector<std::vector<double>> weights;
};

/// One embedding table in double precision on one rank: the definitions of embedding_table.h
/// written out, without sharding, messages or sorting.
struct Table {
  EmbeddingTable definition;
  SparseOptimizerOptions optimizer;
  std::vector<double> weights;        // [num_rows, dim]
  std::vector<double> state;          // [num_rows, dim], or [num_rows] for row-wise Adagrad
  std::vector<double> second_moment;  // [num_rows, dim] for adam

  Table(const EmbeddingTable& definition, const SparseOptimizerOptions& optimizer,
        std::vector<double> weights);

  /// [num_bags, dim], sum or mean.
  std::vector<double> lookup(const WeightedBags& bags) const;
  /// One step from the gradients of the outputs of several lookups.
  void update(const std::vector<WeightedBags>& lookups,
              const std::vector<std::vector<double>>& d_outputs, int step);

 private:
  double scale(const std::vector<std::int64_t>& bag) const;
  void update_row(std::int64_t row, const std::vector<double>& gradient, int step);
};

}  // namespace serrate::reference
