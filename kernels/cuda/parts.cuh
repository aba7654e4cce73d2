#pragma once

#include "kernels/cuda/fours.cuh"

namespace serrate {

/// How a sum of parts meets what is there.
enum class IntoSum { kOverwrite, kAdd };

template <Access kAccess, IntoSum kInto>
struct AddParts {
  Rows<const float> parts;
  std::int64_t num_parts;
  Rows<float> sum;
  std::int64_t rows, cols;

  __device__ void operator()(std::int64_t r, std::int64_t c) const {
    Four total{};
    if (kInto == IntoSum::kAdd) total = load_four<kAccess>(sum.row(r), c, cols);
#pragma unroll 4
    for (std::int64_t part = 0; part < num_parts; ++part) {
      const Four next = load_four<kAccess>(parts.row(part * rows + r), c, cols);
      total = map_four([](float a, float b) { return a + b; }, total, next);
    }
    store_four<kAccess>(total, sum.row(r), c, cols);
  }
};

/// sum = or += the parts, [num_parts * rows of sum, columns of sum], in their order.
template <IntoSum kInto>
void launch_add_parts(DeviceMatrix<const float> parts, DeviceMatrix<float> sum,
                      const Stream& stream) {
  if (sum.rows == 0) return;
  with_access(
      [&](auto access) {
        const AddParts<access(), kInto> add{rows_of(parts), parts.rows / sum.rows, rows_of(sum),
                                            sum.rows, sum.cols};
        launch_for_each_four(sum.rows, sum.cols, add, stream);
      },
      sum, parts);
}

}  // namespace serrate
