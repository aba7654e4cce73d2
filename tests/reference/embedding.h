#pragma once

#include <cstdint>
#include <vector>

#include "serrate/embedding_table.h"
#include "tests/reference/dense.h"

// Lookup and update of one embedding table by their definitions, in double.
namespace serrate::reference {

struct Bags {
  std::vector<std::int64_t> indices;
  std::vector<std::int64_t> offsets;  // [num_bags + 1], from anywhere
  std::vector<float> weights;         // [indices.size()], or empty

  std::int64_t num_bags() const { return static_cast<std::int64_t>(offsets.size()) - 1; }
};

Matrix embedding_lookup(const Matrix& table, const Bags& bags);

/// The gradient by the table of sum(d_output * lookup), added to d_table.
void add_embedding_gradient(const Bags& bags, const Matrix& d_output, Matrix& d_table);

struct Parameters {
  Matrix table, state, second_moment;
};

/// One step on the rows that `touched` names; it may name them more than once.
void embedding_update(const SparseOptimizerOptions& optimizer, std::int64_t step,
                      const Matrix& d_table, const std::vector<std::int64_t>& touched,
                      Parameters& parameters);

}  // namespace serrate::reference
