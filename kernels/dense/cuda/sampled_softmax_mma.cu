// A block of four warps has a tile of 64 rows of one side, 16 a warp, and goes over tiles of 64 of
// the other, of which the next one is copied to shared memory meanwhile. Logits and sums of
// weighted rows are accumulators of mma.m16n8k16 of bfloat16 or mma.m16n8k8 of tf32.
//
// Every tile is read by many blocks, so rows are rounded only once, to copies of whole tiles, with
// zeros behind the last row and the last column: in bfloat16 these are half as many bytes, too.
#include <cmath>
#include <numbers>

#include "kernels/dense/cuda/sampled_softmax.cuh"
#include "kernels/dense/cuda/softmax_tiles.cuh"

namespace serrate {
namespace {

constexpr float kLog2e = std::numbers::log2e_v<float>;

// A lane's rows g and g + 8 of a warp's 16.
struct LaneRows {
  std::int64_t row[2];
  std::int64_t id[2];

  __device__ LaneRows(const SoftmaxSide& side, std::int64_t first) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      row[r] = first + static_cast<int>(threadIdx.x) / 32 * kWarpRows + lane_index() / 4 + 8 * r;
      id[r] = row[r] < side.size ? side.ids[row[r]] : 0;
    }
  }
};

// Calls f(logit, column) for each logit of a lane, which is -infinity where there is no column, or
// its row has the same id.
template <int kBlocks, class Column, typename F>
__device__ void for_each_logit(Fragment<kBlocks>& logits, const LaneRows& rows,
                               const Column* columns, int count, float inverse_temperature, F f) {
  const int first = lane_index() % 4 * 2;
#pragma unroll
  for (int n = 0; n < kBlocks; ++n) {
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      const int place = 8 * n + first + c;
      const Column column = columns[place];
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        float& logit = logits[n][2 * r + c];
        const bool is_kept = place < count && column.id != rows.id[r];
        logit = is_kept ? logit * inverse_temperature : -INFINITY;
        f(logit, column);
      }
    }
  }
}

// The lane's rows of the sums, of which the first `dim` columns are to be written to row(r), which
// is null where there is none.
template <int kDim, typename Row>
__device__ void write_sums(const Fragment<kDim / 8>& sums, std::int64_t dim, Access access,
                           IntoSum into, Row row) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float* const to = row(r);
    if (!to) continue;
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
      const int c = 8 * n + lane_index() % 4 * 2;
      const float2 pair{sums[n][2 * r], sums[n][2 * r + 1]};
      if (access == Access::kVectors && c + 2 <= dim) {
        auto* const place = reinterpret_cast<float2*>(to + c);
        const float2 before = into == IntoSum::kAdd ? *place : float2{};
        const float2 sum{before.x + pair.x, before.y + pair.y};
        *place = sum;
      } else {
        if (c < dim) to[c] = into == IntoSum::kAdd ? to[c] + pair.x : pair.x;
        if (c + 1 < dim) to[c + 1] = into == IntoSum::kAdd ? to[c + 1] + pair.y : pair.y;
      }
    }
  }
}

// f over the four lanes that share a row.
template <typename F>
__device__ float reduce_four(float x, F f) {
  x = f(x, __shfl_xor_sync(~0u, x, 1));
  return f(x, __shfl_xor_sync(~0u, x, 2));
}

// The maxima so far of a lane's rows, and its own part of the sums.
struct LaneSoftmax {
  float max[2] = {-INFINITY, -INFINITY}, sum[2] = {};

  // Turns logits into e; what was summed before shrinks with a new maximum.
  template <int kBlocks, int kSums>
  __device__ void add(Fragment<kBlocks>& logits, Fragment<kSums>& weighted) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float now = max[r];
#pragma unroll
      for (const auto& block : logits) now = fmaxf(now, fmaxf(block[2 * r], block[2 * r + 1]));
      now = reduce_four(now, [](float a, float b) { return fmaxf(a, b); });
      const float shift = now == -INFINITY ? 0 : now;  // nothing is left so far: e = 0
      const float rescale = exp2f((max[r] - shift) * kLog2e);
      float sum_of_tile = 0;
#pragma unroll
      for (auto& block : logits) {
#pragma unroll
        for (int i = 2 * r; i < 2 * r + 2; ++i) {
          block[i] = exp2f((block[i] - shift) * kLog2e);
          sum_of_tile += block[i];
        }
      }
      sum[r] = fmaf(sum[r], rescale, sum_of_tile);
      max[r] = now;
#pragma unroll
      for (auto& block : weighted) {
        block[2 * r] *= rescale;
        block[2 * r + 1] *= rescale;
      }
    }
  }
};

// A tile of tokens, a chunk of negatives.
template <class Factor, int kDim>
__global__ void __launch_bounds__(kSoftmaxThreads)
    sum_over_negatives(Softmax args, const void* tokens, const void* negatives, Access access) {
  using Column = NegativeColumn;
  constexpr int kBlocks = SoftmaxTiles<Factor, kDim, Column>::kBlocks;
  const SoftmaxChunk chunk = chunk_of_block(args.negatives.size);
  const LaneRows rows(args.tokens, chunk.first);
  LaneSoftmax softmax;
  Fragment<kDim / 8> weighted = {};
  for_each_tile<Factor, kDim, Column>(
      chunk, {tokens, negatives, args.tokens.size},
      [&](std::int64_t i) { return Column{args.negatives.ids[i]}; },
      [&](auto& logits, const Column* columns, auto tile, int first, int count) {
        for_each_logit<kBlocks>(logits, rows, columns, count, args.inverse_temperature,
                                [](float&, const Column&) {});
        softmax.add<kBlocks, kDim / 8>(logits, weighted);
        if (!args.weighted) return;
        Factor::template add_weighted_rows<kBlocks>(logits, tile, first, count, weighted);
      });
  const std::int64_t n = args.tokens.size, chunk_rows = blockIdx.y * n;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float sum = reduce_four(softmax.sum[r], [](float a, float b) { return a + b; });
    if (rows.row[r] >= n || lane_index() % 4 != 0) continue;
    args.maxima[chunk_rows + rows.row[r]] = softmax.max[r];
    args.sums[chunk_rows + rows.row[r]] = sum;
  }
  if (!args.weighted) return;
  write_sums<kDim>(weighted, args.dim, access, IntoSum::kOverwrite, [&](int r) -> float* {
    return rows.row[r] < n ? args.weighted + (chunk_rows + rows.row[r]) * args.dim : nullptr;
  });
}

// A tile of negatives, a chunk of tokens.
template <class Factor, int kDim>
__global__ void __launch_bounds__(kSoftmaxThreads)
    sum_over_tokens(Softmax args, const void* tokens, const void* negatives,
                    NegativeGradients gradients, Access access) {
  using Column = TokenColumn;
  constexpr int kBlocks = SoftmaxTiles<Factor, kDim, Column>::kBlocks;
  const SoftmaxChunk chunk = chunk_of_block(args.tokens.size);
  const LaneRows rows(args.negatives, chunk.first);
  Fragment<kDim / 8> sums = {};
  for_each_tile<Factor, kDim, Column>(
      chunk, {negatives, tokens, args.negatives.size},
      [&](std::int64_t t) { return Column{args.tokens.ids[t], args.max[t], args.scale[t]}; },
      [&](auto& logits, const Column* columns, auto tile, int first, int count) {
        for_each_logit<kBlocks>(logits, rows, columns, count, args.inverse_temperature,
                                [](float& logit, const Column& token) {
                                  logit = exp2f((logit - token.max) * kLog2e) * token.scale;
                                });
        Factor::template add_weighted_rows<kBlocks>(logits, tile, first, count, sums);
      });
  const Rows<float> to = gradients.of_block(args);
  write_sums<kDim>(sums, args.dim, access, gradients.into(), [&](int r) -> float* {
    return rows.row[r] < args.negatives.size ? to.row(rows.row[r]) : nullptr;
  });
  if (args.dim % 4 == 0) {
    gradients.add_parts<Four>(args, 0, args.dim);
  } else {
    gradients.add_parts<float>(args, 0, args.dim);
  }
}

// `to` is [first_negative + ..., to_cols] without gaps: tokens and negatives, each with more rows
// and columns than there are, perhaps.
template <class Factor, Access kAccess>
struct RoundRows {
  Rows<const float> tokens, negatives;
  std::int64_t num_tokens, num_negatives, first_negative, cols;
  typename Factor::Value* to;
  std::int64_t to_cols;

  __device__ void operator()(std::int64_t r, std::int64_t c) const {
    const bool is_token = r < first_negative;
    const Rows<const float> from = is_token ? tokens : negatives;
    const std::int64_t row = is_token ? r : r - first_negative;
    Four four{};
    if (row < (is_token ? num_tokens : num_negatives)) {
      four = load_four<kAccess>(from.row(row), c, cols);
    }
    store_four<Access::kVectors>(Factor::round(four), to + r * to_cols, c, to_cols);
  }
};

// Calls f(factor, dim) with a factor and std::integral_constant of the columns of its tiles.
template <typename F>
void with_tiles(Precision precision, std::int64_t dim, F f) {
  const auto with_dim = [&](auto factor) {
    if (dim <= 32) return f(factor, std::integral_constant<int, 32>{});
    if (dim <= 64) return f(factor, std::integral_constant<int, 64>{});
    if (dim <= 128) return f(factor, std::integral_constant<int, 128>{});
    return f(factor, std::integral_constant<int, 256>{});
  };
  static_assert(SoftmaxOnTensorCores::kMostColumns == 256);
  if (precision == Precision::kBf16) return with_dim(Bf16Factor{});
  with_dim(Tf32Factor{});
}

// Whether two columns can be written at once.
Access pair_access(const float* data, std::int64_t stride) {
  const bool aligned = reinterpret_cast<std::uintptr_t>(data) % sizeof(float2) == 0;
  return aligned && stride % 2 == 0 ? Access::kVectors : Access::kScalars;
}

// More shared memory than 48 KiB has to be asked for.
template <typename... Parameters, typename... Arguments>
void launch_softmax(void (*kernel)(Parameters...), dim3 grid, std::size_t bytes,
                    const Stream& stream, const Arguments&... arguments) {
  cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  static_cast<int>(bytes)));
  launch(kernel, grid, kSoftmaxThreads, bytes, stream, arguments...);
}

}  // namespace

bool SoftmaxOnTensorCores::take(const SampledSoftmax& args, const Stream& stream) {
  if (args.precision == Precision::kFp32 || args.hidden.cols > kMostColumns) return false;
  int most = 0;
  cuda_check(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin,
                                    stream.device().index));
  bool fits = false;
  with_tiles(args.precision, args.hidden.cols, [&](auto factor, auto dim) {
    fits = SoftmaxTiles<decltype(factor), dim(), TokenColumn>::kBytes <=
           static_cast<std::size_t>(most);
  });
  return fits;
}

SoftmaxOnTensorCores::SoftmaxOnTensorCores(const SampledSoftmax& args, const Stream& stream)
    : precision_(args.precision) {
  const auto hidden = args.hidden, negatives = args.negatives;
  with_tiles(precision_, hidden.cols, [&](auto factor, auto dim) {
    using Factor = decltype(factor);
    constexpr std::int64_t kWords = dim() * sizeof(typename Factor::Value) / sizeof(std::uint32_t);
    const std::int64_t first_negative = num_tiles(hidden.rows) * kTile;
    const std::int64_t rows = first_negative + num_tiles(negatives.rows) * kTile;
    rounded_ = Buffer<std::uint32_t>(rows * kWords, stream);
    negatives_begin_ = first_negative * kWords;
    with_access(
        [&](auto access) {
          const RoundRows<Factor, access()> round{
              rows_of(hidden),
              rows_of(negatives),
              hidden.rows,
              negatives.rows,
              first_negative,
              hidden.cols,
              reinterpret_cast<typename Factor::Value*>(rounded_.device_data()),
              dim()};
          launch_for_each_four(rows, dim(), round, stream);
        },
        hidden, negatives);
  });
}

void SoftmaxOnTensorCores::sum_over_negatives(const Softmax& args, std::int64_t chunks,
                                              const Stream& stream) const {
  with_tiles(precision_, args.dim, [&](auto factor, auto dim) {
    using Factor = decltype(factor);
    launch_softmax(serrate::sum_over_negatives<Factor, dim()>,
                   grid_of(num_tiles(args.tokens.size), chunks, 1),
                   SoftmaxTiles<Factor, dim(), NegativeColumn>::kBytes, stream, args,
                   static_cast<const void*>(rounded_.device_data()),
                   static_cast<const void*>(rounded_.device_data() + negatives_begin_),
                   pair_access(args.weighted, args.dim));
  });
}

void SoftmaxOnTensorCores::sum_over_tokens(const Softmax& args, const NegativeGradients& gradients,
                                           std::int64_t chunks, const Stream& stream) const {
  const Access access = gradients.parts
                            ? pair_access(gradients.parts, args.dim)
                            : pair_access(gradients.d_negatives.data, gradients.d_negatives.stride);
  with_tiles(precision_, args.dim, [&](auto factor, auto dim) {
    using Factor = decltype(factor);
    launch_softmax(
        serrate::sum_over_tokens<Factor, dim()>, grid_of(num_tiles(args.negatives.size), chunks, 1),
        SoftmaxTiles<Factor, dim(), TokenColumn>::kBytes, stream, args,
        static_cast<const void*>(rounded_.device_data()),
        static_cast<const void*>(rounded_.device_data() + negatives_begin_), gradients, access);
  });
}

}  // namespace serrate
