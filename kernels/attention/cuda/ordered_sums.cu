// A block has 32 columns, and for each of them eight threads, whose runs of rows it adds up.
#include "kernels/attention/cuda/ordered_sums.h"

#include "kernels/attention/cuda/tile.cuh"
#include "src/core/launch.cuh"

namespace serrate {
namespace {

constexpr int kColumns = 32, kRuns = 8;

// Calls f(column, sum of its `count` rows).
template <typename F>
__device__ void for_each_sum(const float* rows, std::int64_t count, std::int64_t size, F&& f) {
  __shared__ float sums[kRuns][kColumns];
  const std::int64_t column = std::int64_t{blockIdx.x} * kColumns + threadIdx.x;
  const std::int64_t run = ceil_div(count, kRuns), begin = threadIdx.y * run;
  float sum = 0;
  if (column < size) {
#pragma unroll 4
    for (std::int64_t row = begin; row < std::min(begin + run, count); ++row) {
      sum += rows[row * size + column];
    }
  }
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y > 0 || column >= size) return;
  for (int i = 1; i < kRuns; ++i) sum += sums[i][threadIdx.x];
  f(column, sum);
}

__global__ void add_each_row(const float* rows, std::int64_t count, std::span<float> sums) {
  for_each_sum(rows, count, static_cast<std::int64_t>(sums.size()),
               [&](std::int64_t i, float sum) { sums[i] += sum; });
}

__global__ void sum_each_query(const float* of_sequences,
                               const __grid_constant__ AttentionBackwardView call,
                               std::int64_t size) {
  const std::int64_t head_dim = call.forward.head_dim, heads = call.forward.num_heads;
  for_each_sum(of_sequences, batch_size_of(call.forward), size, [&](std::int64_t i, float sum) {
    const std::int64_t row = i / head_dim;
    store(sum, call.d_q, row / heads, row % heads, static_cast<int>(i % head_dim));
  });
}

template <typename... Parameters, typename... Arguments>
void launch_sums(void (*kernel)(Parameters...), std::int64_t size, const Stream& stream,
                 Arguments&&... arguments) {
  launch(kernel, static_cast<unsigned>(ceil_div(size, kColumns)), dim3(kColumns, kRuns), 0, stream,
         std::forward<Arguments>(arguments)...);
}

}  // namespace

void add_rows(const Buffer<float>& rows, std::span<float> sums, const Stream& stream) {
  if (rows.size() == 0) return;
  launch_sums(add_each_row, std::ssize(sums), stream, rows.device_data(),
              rows.size() / std::ssize(sums), sums);
}

void sum_shared_queries(const float* of_sequences, const AttentionBackwardView& call,
                        const Stream& stream) {
  const AttentionView& args = call.forward;
  const std::int64_t size = args.num_shared_queries * args.num_heads * args.head_dim;
  launch_sums(sum_each_query, size, stream, of_sequences, call, size);
}

}  // namespace serrate
