// A thread draws the four weights of a call of Philox, of which it writes those that the rows have.
#include "serrate/kernels/random_rows.h"

#include <cuda_fp16.h>

#include "kernels/cuda/fours.cuh"
#include "kernels/embedding/random_weights.h"

namespace serrate {
namespace {

__device__ void write(float weight, float* to) {
  *to = weight;
}
__device__ void write(float weight, BFloat16* to) {
  *reinterpret_cast<__nv_bfloat16*>(to) = __float2bfloat16_rn(weight);
}
__device__ void write(float weight, Float16* to) {
  *reinterpret_cast<__half*>(to) = __float2half_rn(weight);
}

template <typename T>
struct Draw {
  WeightDraw draw;
  Rows<T> rows;
  std::int64_t first_column, cols, first_call;

  // Columns c to c + 3, counted from those of the first call.
  __device__ void operator()(std::int64_t r, std::int64_t c) const {
    const std::int64_t call = first_call + c / kWeightsOfCall;
    const auto words = draw.words(r, call);
    T* const row = rows.row(r);
#pragma unroll
    for (int k = 0; k < kWeightsOfCall; ++k) {
      const std::int64_t column = call * kWeightsOfCall + k - first_column;
      if (0 <= column && column < cols) write(draw.weight(words[k]), row + column);
    }
  }
};

}  // namespace

template <>
void random_rows_on<DeviceType::kCuda>(const RandomRows& args, const Stream& stream) {
  const std::int64_t first_call = args.first_column / kWeightsOfCall;
  const std::int64_t end = args.first_column + args.rows.cols;
  with_any_elements(args.rows, [&]<typename T>(const DeviceMatrix<T>& rows) {
    const Draw<T> draw{WeightDraw(args), rows_of(rows), args.first_column, rows.cols, first_call};
    if (rows.cols == 0) return;
    launch_for_each_four(rows.rows, end - first_call * kWeightsOfCall, draw, stream);
  });
}

}  // namespace serrate
