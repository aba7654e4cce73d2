// A row is read once by one group of threads, or made by it, which keeps it in registers. Backward,
// a group also keeps the sums of its rows for gamma, beta and the bias of the branch; blocks add up
// those of their groups, and the last block those of all blocks, each in order.
#include "kernels/cuda/block_sums.cuh"
#include "kernels/dense/cuda/dropout.cuh"
#include "kernels/dense/cuda/row_group.cuh"
#include "kernels/dense/cuda/token_rows.cuh"
#include "serrate/kernels/layer_norm.h"

namespace serrate {
namespace {

constexpr std::int64_t kMostForwardBlocks = 1024;
constexpr std::int64_t kMostBackwardBlocks = 264;  // two on each of Hopper's 132 multiprocessors

// A branch in memory, if there is one; TokenRows is one that is made.
template <typename T>
struct BranchRows {
  Rows<const T> rows;
  template <Access kAccess>
  __device__ Four load(std::int64_t r, std::int64_t c, std::int64_t cols) const {
    return load_four<kAccess>(rows.row(r), c, cols);
  }
};

// LayerNormForward and LayerNormBackward as kernels see them.
template <typename Y, typename Branch>
struct Forward {
  Rows<const float> x;
  Dropout dropout;
  Branch branch;
  bool has_branch;
  Rows<const float> residual;
  Rows<float> sum;
  const float *gamma, *beta;
  Rows<Y> y;
  float *mean, *rstd;
  float eps;
  std::int64_t rows, cols;
};
template <typename Y, typename Branch>
struct Backward {
  Rows<const float> x;
  Rows<Y> d_y;
  const float *gamma, *mean, *rstd;
  Rows<float> d_x;
  LayerNormBackward::Write write;
  Dropout dropout;
  Rows<Branch> d_branch;
  // [blocks, 3 cols]: d_gamma, d_beta and d_bias of each block's rows; 2 cols without d_bias
  float* parts;
  float *d_gamma, *d_beta, *d_bias;
  unsigned* done_blocks;
  std::int64_t rows, cols;
};

// Columns that do not exist must not be seen as 0 - mean.
template <int kFours, Access kAccess>
__device__ RowPart<kFours, kAccess> centered(RowPart<kFours, kAccess> part, float mean,
                                             std::int64_t cols) {
#pragma unroll
  for (int i = 0; i < kFours; ++i) {
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      float& value = part.fours[i].value[k];
      value = part.column(i) + k < cols ? value - mean : 0;
    }
  }
  return part;
}

// before + x keep / (1 - rate) of row r; a row of no columns has no token.
template <int kFours, Access kAccess>
__device__ RowPart<kFours, kAccess> drop_row(const Dropout& dropout,
                                             const RowPart<kFours, kAccess>& x,
                                             const RowPart<kFours, kAccess>& before, std::int64_t r,
                                             std::int64_t cols) {
  RowPart<kFours, kAccess> result{};
  if (cols == 0) return result;
#pragma unroll
  for (int i = 0; i < kFours; ++i) {
    result.fours[i] = dropout.add(x.fours[i], before.fours[i], r, x.column(i));
  }
  return result;
}

template <int kFours, Access kAccess, typename Y, typename Branch>
__device__ RowPart<kFours, kAccess> input_row(const Forward<Y, Branch>& args, std::int64_t r,
                                              std::int64_t cols) {
  using Part = RowPart<kFours, kAccess>;
  if (!args.has_branch) return Part::load(args.x.row(r), cols);
  Part residual{}, branch;
  if (args.residual.data) residual = Part::load(args.residual.row(r), cols);
#pragma unroll
  for (int i = 0; i < kFours; ++i) {
    branch.fours[i] = args.branch.template load<kAccess>(r, Part::column(i), cols);
  }
  const Part sum = drop_row(args.dropout, branch, residual, r, cols);
  sum.store(args.sum.row(r), cols);
  return sum;
}

// Shared memory: gamma and beta.
template <int kFours, Access kAccess, typename Y, typename Branch>
__global__ void __launch_bounds__(kGroupThreads) layer_norm_rows(Forward<Y, Branch> args) {
  using Part = RowPart<kFours, kAccess>;
  const std::int64_t num_cols = args.cols;
  float* const gamma = dynamic_shared<float>();
  float* const beta = gamma + shared_floats(num_cols);
  for_each_column_of_block(num_cols, [&](std::int64_t c) {
    gamma[c] = args.gamma[c];
    beta[c] = args.beta[c];
  });
  __syncthreads();
  for_each_row(args.rows, num_cols, [&](std::int64_t r, std::int64_t cols) {
    const Part x = input_row<kFours, kAccess>(args, r, cols);
    const float mean = sum_of_row(x) / static_cast<float>(cols);
    const Part from_mean = centered(x, mean, cols);
    const float squares = sum_of_row(map_row([](float v) { return v * v; }, from_mean));
    const float rstd = 1 / sqrtf(squares / static_cast<float>(cols) + args.eps);
    if (cols == 0) return;
    if (threadIdx.x == 0) {
      args.mean[r] = mean;
      args.rstd[r] = rstd;
    }
    const auto scale = [rstd](float v, float a, float b) { return fmaf(v * rstd, a, b); };
    map_row(scale, from_mean, Part::load(gamma, cols), Part::load(beta, cols))
        .store(args.y.row(r), cols);
  });
}

// With x^ the normalized x and g = d_y gamma: d_x = rstd (g - mean(g) - x^ mean(g x^)).
// Shared memory: gamma; when that is over, the block's sums.
template <int kFours, Access kAccess, typename Y, typename Branch>
__global__ void __launch_bounds__(kGroupThreads)
    layer_norm_backward_rows(Backward<Y, Branch> args) {
  using Part = RowPart<kFours, kAccess>;
  const std::int64_t num_cols = args.cols;
  float* const gamma = dynamic_shared<float>();
  for_each_column_of_block(num_cols, [&](std::int64_t c) { gamma[c] = args.gamma[c]; });
  __syncthreads();
  Part d_gamma{}, d_beta{}, d_bias{};
  for_each_row(args.rows, num_cols, [&](std::int64_t r, std::int64_t cols) {
    const float mean = cols > 0 ? args.mean[r] : 0, rstd = cols > 0 ? args.rstd[r] : 0;
    const auto normalize = [rstd](float v) { return v * rstd; };
    const Part x = map_row(normalize, centered(Part::load(args.x.row(r), cols), mean, cols));
    const Part d_y = Part::load(args.d_y.row(r), cols);
    const auto product = [](float a, float b) { return a * b; };
    const Part g = map_row(product, d_y, Part::load(gamma, cols));
    const float mean_g = sum_of_row(g) / static_cast<float>(cols);
    const float mean_product = sum_of_row(map_row(product, g, x)) / static_cast<float>(cols);
    if (cols == 0) return;
    const auto gradient = [=](float a, float b) {
      return rstd * fmaf(-b, mean_product, a - mean_g);
    };
    Part d_x = map_row(gradient, g, x);
    const auto add = [](float a, float b) { return a + b; };
    if (args.write == LayerNormBackward::Write::kAccumulate) {
      d_x = map_row(add, d_x, Part::load(args.d_x.row(r), cols));
    }
    d_x.store(args.d_x.row(r), cols);
    if (args.d_branch.data) {
      const Part d_branch = drop_row(args.dropout, d_x, Part{}, r, cols);
      d_branch.store(args.d_branch.row(r), cols);
      d_bias = map_row(add, d_bias, d_branch);
    }
    const auto multiply_add = [](float sum, float a, float b) { return fmaf(a, b, sum); };
    d_gamma = map_row(multiply_add, d_gamma, d_y, x);
    d_beta = map_row(add, d_beta, d_y);
  });
  const std::int64_t width = (args.d_bias ? 3 : 2) * num_cols;
  float* const parts = args.parts + blockIdx.x * width;
  write_sum_of_groups(d_gamma, parts, num_cols);
  write_sum_of_groups(d_beta, parts + num_cols, num_cols);
  if (args.d_bias) write_sum_of_groups(d_bias, parts + 2 * num_cols, num_cols);
  if (!sum_over_blocks(args.parts, width, args.done_blocks)) return;
  for_each_column_of_block(num_cols, [&](std::int64_t c) {
    args.d_gamma[c] += args.parts[c];
    args.d_beta[c] += args.parts[num_cols + c];
    if (args.d_bias) args.d_bias[c] += args.parts[2 * num_cols + c];
  });
}

// Calls f with the matrix, or one of Default without data.
template <typename Default, typename Void, typename F>
void with_optional_elements(const AnyMatrix<Void>& matrix, F&& f) {
  if (!matrix.has_data()) return f(DeviceMatrix<Default>());
  with_elements(matrix, f);
}

// `sources`: what the branch reads.
template <typename Y, typename Branch, typename... Sources>
void start_forward(const LayerNormForward& args, DeviceMatrix<Y> y, const Branch& branch,
                   const Stream& stream, const Sources&... sources) {
  const Forward<Y, Branch> forward{rows_of(args.x),
                                   Dropout(args.sum.key),
                                   branch,
                                   args.sum.branch.has_data(),
                                   rows_of(args.sum.residual),
                                   rows_of(args.sum.sum),
                                   args.gamma.device_data(),
                                   args.beta.device_data(),
                                   rows_of(y),
                                   args.mean.device_data(),
                                   args.rstd.device_data(),
                                   args.eps,
                                   args.x.rows,
                                   args.x.cols};
  with_row_groups(
      args.x.rows, args.x.cols, kMostForwardBlocks,
      [&](auto fours, auto access, const GroupLaunch& shape) {
        launch(layer_norm_rows<fours(), access(), Y, Branch>, shape.blocks, shape.block,
               2 * shared_bytes(args.x.cols), stream, forward);
      },
      args.x, y, args.sum.residual, sources...);
}

template <typename Y, typename Branch>
void start_backward(const LayerNormBackward& args, DeviceMatrix<Y> d_y,
                    DeviceMatrix<Branch> d_branch, const Stream& stream) {
  const std::int64_t cols = args.x.cols;
  Buffer<float> parts(kMostBackwardBlocks * 3 * cols, stream);
  const Backward<Y, Branch> backward{rows_of(args.x),
                                     rows_of(d_y),
                                     args.gamma.device_data(),
                                     args.mean.device_data(),
                                     args.rstd.device_data(),
                                     rows_of(args.d_x),
                                     args.write,
                                     Dropout(args.key),
                                     rows_of(d_branch),
                                     parts.device_data(),
                                     args.d_gamma.device_data(),
                                     args.d_beta.device_data(),
                                     args.d_bias.device_data(),
                                     done_blocks_of(1, kMostBackwardBlocks, stream),
                                     args.x.rows,
                                     cols};
  with_row_groups(
      args.x.rows, cols, kMostBackwardBlocks,
      [&](auto fours, auto access, const GroupLaunch& shape) {
        launch(layer_norm_backward_rows<fours(), access(), Y, Branch>, shape.blocks, shape.block,
               shared_bytes(cols), stream, backward);
      },
      args.x, d_y, args.d_x, d_branch);
}

}  // namespace

template <>
void layer_norm_forward_on<DeviceType::kCuda>(const LayerNormForward& args, const Stream& stream) {
  if (args.x.rows == 0) return;
  with_elements(args.y, [&]<typename Y>(const DeviceMatrix<Y>& y) {
    if (const auto& tokens = args.sum.tokens) {
      start_forward(args, y, TokenRows(*tokens), stream, tokens->position, tokens->features);
      return;
    }
    with_optional_elements<const Y>(
        args.sum.branch, [&]<typename T>(const DeviceMatrix<const T>& branch) {
          start_forward(args, y, BranchRows<T>{rows_of(branch)}, stream, branch);
        });
  });
}

template <>
void layer_norm_backward_on<DeviceType::kCuda>(const LayerNormBackward& args,
                                               const Stream& stream) {
  if (args.x.rows == 0) return;
  with_elements(args.d_y, [&]<typename Y>(const DeviceMatrix<Y>& d_y) {
    with_optional_elements<std::remove_const_t<Y>>(
        args.d_branch, [&](const auto& d_branch) { start_backward(args, d_y, d_branch, stream); });
  });
}

}  // namespace serrate
