#pragma once

#include <cstdint>
#include <vector>

#include "serrate/kernels/jagged_bmm.h"
#include "serrate/kernels/jagged_elementwise.h"
#include "serrate/kernels/jagged_softmax.h"
#include "tests/reference/dense.h"

// The feature interaction ops by their definitions, a matrix for every sample.
namespace serrate::reference {

using Samples = std::vector<Matrix>;

Matrix product(const Matrix& x, const Matrix& y, Transposed transpose);
Matrix softmax(const Matrix& x, SoftmaxAxis axis);
/// y counts as 0 outside its rows and columns.
Matrix elementwise(Elementwise op, const Matrix& x, const Matrix& y);
/// What x has of it, and `fill` in the rest.
Matrix resized(const Matrix& x, std::int64_t rows, std::int64_t cols, double fill);
Matrix concat(const Matrix& x, const Matrix& y);

}  // namespace serrate::reference
