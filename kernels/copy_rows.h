#pragma once

#include <algorithm>
#include <cstdint>

#include "serrate/matrix_view.h"

namespace serrate {

/// to = from for matrices of the same shape; at once where both are contiguous.
inline void copy_rows(const MatrixView<const float>& from, const MatrixView<float>& to) {
  if (from.stride == to.cols && to.stride == to.cols) {
    std::copy_n(from.data, to.rows * to.cols, to.data);
    return;
  }
  for (std::int64_t r = 0; r < to.rows; ++r) std::copy_n(from.row(r), to.cols, to.row(r));
}

inline void fill_rows(const MatrixView<float>& to, float value) {
  if (to.stride == to.cols) {
    std::fill_n(to.data, to.rows * to.cols, value);
    return;
  }
  for (std::int64_t r = 0; r < to.rows; ++r) std::fill_n(to.row(r), to.cols, value);
}

}  // namespace serrate
