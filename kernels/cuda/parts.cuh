#pragma once

#include "kernels/cuda/fours.cuh"

namespace serrate {

template <Access kAccess>
struct AddParts {
  Rows<const float> parts;
  std::int64_t num_parts;
  Rows<float> sum;
  std::int64_t rows, cols;

  __device__ void operator()(std::int64_t r, std::int64_t c) const {
    Four total{};
#pragma unroll 4
    for (std::int64_t part = 0; part < num_parts; ++part) {
      total += load_four<kAccess>(parts.row(part * rows + r), c, cols);
    }
    store_four<kAccess>(total, sum.row(r), c, cols);
  }
};

/// sum = the parts added up, [num_parts * rows of sum, columns of sum], in their order.
inline void launch_add_parts(DeviceMatrix<const float> parts, DeviceMatrix<float> sum,
                             const Stream& stream) {
  if (sum.rows == 0) return;
  with_access(
      [&](auto access) {
        const AddParts<access()> add{rows_of(parts), parts.rows / sum.rows, rows_of(sum), sum.rows,
                                     sum.cols};
        launch_for_each_four(sum.rows, sum.cols, add, stream);
      },
      sum, parts);
}

}  // namespace serrate
