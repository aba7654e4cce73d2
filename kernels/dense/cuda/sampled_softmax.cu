// Logits exist in tiles of 64 tokens by 64 negatives only. One kernel goes over the negatives for
// a tile of tokens and keeps, as flash-attention does, the largest logit, the sum of
// e = exp(logit - max), and the sum of e times the negative's row; a second one ends each token:
// loss, d_hidden and d_targets; a third one goes over the tokens for a tile of negatives, makes
// their e again and sums up d_negatives. Where there are few tiles of the one, the other is cut in
// chunks, whose sums are then added in order, by the second kernel or by the last block of a tile.
// The first and the third have a twin on tensor cores (sampled_softmax_mma.cu).
#include <optional>

#include "kernels/dense/cuda/row_group.cuh"
#include "kernels/dense/cuda/sampled_softmax.cuh"

namespace serrate {
namespace {

constexpr std::int64_t kWantedBlocks = 528;  // four on each of Hopper's 132 multiprocessors
constexpr std::int64_t kMostEndBlocks = 264;

// The logits of a tile, [4][4] for each thread: -inf where there is no row, or target and negative
// are the same.
template <Access kAccess>
__device__ void take_logits(const SoftmaxSide& a, std::int64_t first_a, const SoftmaxSide& b,
                            std::int64_t first_b, const Softmax& args, SharedTile (&shared)[2],
                            float (&logits)[4][4]) {
  multiply_rows<kAccess>(tile_rows(a.rows, first_a, a.size, args.dim),
                         tile_rows(b.rows, first_b, b.size, args.dim), shared[0], shared[1],
                         logits);
  const std::int64_t i0 = first_a + threadIdx.x / 16 * 4, j0 = first_b + threadIdx.x % 16 * 4;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const bool is_kept = i0 + i < a.size && j0 + j < b.size && a.ids[i0 + i] != b.ids[j0 + j];
      logits[i][j] =
          is_kept ? logits[i][j] * args.inverse_temperature : -__int_as_float(0x7f800000);
    }
  }
}

// sums[i][j] += sum over the tile's b of e[i][b] times columns 64 blockIdx.z + 4x + j of row b.
template <Access kAccess>
__device__ void add_weighted_rows(const float (&e)[4][4], const SoftmaxSide& b,
                                  std::int64_t first_b, const Softmax& args,
                                  SharedTile (&shared)[2], float (&sums)[4][4]) {
  const unsigned x = threadIdx.x % 16, y = threadIdx.x / 16;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    *reinterpret_cast<Four*>(&shared[0][4 * x + j][4 * y]) = {e[0][j], e[1][j], e[2][j], e[3][j]};
  }
  load_straight<kAccess>(tile_rows(b.rows, first_b, b.size, args.dim),
                         std::int64_t{blockIdx.z} * kTile, shared[1]);
  __syncthreads();
  const auto depth = static_cast<int>(std::min<std::int64_t>(kTile, b.size - first_b));
  multiply_tiles(shared[0], shared[1], depth, sums);
  __syncthreads();
}

template <Access kAccess>
__device__ void store_sums(const float (&sums)[4][4], Rows<float> to, std::int64_t first_row,
                           std::int64_t end, std::int64_t cols, IntoSum into) {
  const std::int64_t c = std::int64_t{blockIdx.z} * kTile + threadIdx.x % 16 * 4;
  if (c >= cols) return;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const std::int64_t r = first_row + threadIdx.x / 16 * 4 + i;
    if (r >= end) return;
    Four four{sums[i][0], sums[i][1], sums[i][2], sums[i][3]};
    if (into == IntoSum::kAdd) four += load_four<kAccess>(to.row(r), c, cols);
    store_four<kAccess>(four, to.row(r), c, cols);
  }
}

// f over the 16 threads that share rows of a tile.
template <typename F>
__device__ float reduce_row(float value, F f) {
#pragma unroll
  for (int lanes = 8; lanes > 0; lanes /= 2) {
    value = f(value, __shfl_xor_sync(0xffffffff, value, lanes));
  }
  return value;
}

// The maxima and sums so far of the four rows that a thread shares.
struct RunningSoftmax {
  float max[4], sum[4];

  // Turns logits into e, and returns in `rescale` by what earlier e have to be multiplied.
  __device__ void add(float (&logits)[4][4], float (&rescale)[4]) {
    const auto larger = [](float a, float b) { return fmaxf(a, b); };
    const auto plus = [](float a, float b) { return a + b; };
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float(&row)[4] = logits[i];
      const float of_tile = fmaxf(fmaxf(row[0], row[1]), fmaxf(row[2], row[3]));
      const float now = fmaxf(max[i], reduce_row(of_tile, larger));
      const float shift = isinf(now) && now < 0 ? 0 : now;  // nothing is left so far: e = 0
      rescale[i] = expf(max[i] - shift);
#pragma unroll
      for (float& logit : row) logit = expf(logit - shift);
      const float sum_of_tile = reduce_row((row[0] + row[1]) + (row[2] + row[3]), plus);
      sum[i] = fmaf(sum[i], rescale[i], sum_of_tile);
      max[i] = now;
    }
  }
};

// A tile of tokens, a chunk of negatives.
template <Access kAccess>
__global__ void __launch_bounds__(kTileThreads) sum_over_negatives(Softmax args) {
  __shared__ __align__(16) SharedTile shared[2];
  const SoftmaxChunk chunk = chunk_of_block(args.negatives.size);
  RunningSoftmax softmax;
  float weighted[4][4] = {};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    softmax.max[i] = -__int_as_float(0x7f800000);
    softmax.sum[i] = 0;
  }
  for (std::int64_t begin = chunk.begin; begin < chunk.end; begin += kTile) {
    float e[4][4], rescale[4];
    take_logits<kAccess>(args.tokens, chunk.first, args.negatives, begin, args, shared, e);
    softmax.add(e, rescale);
    if (!args.weighted) continue;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (float& value : weighted[i]) value *= rescale[i];
    }
    add_weighted_rows<kAccess>(e, args.negatives, begin, args, shared, weighted);
  }
  const std::int64_t n = args.tokens.size;
  for (int i = 0; i < 4 && blockIdx.z == 0 && threadIdx.x % 16 == 0; ++i) {
    const std::int64_t t = chunk.first + threadIdx.x / 16 * 4 + i;
    if (t >= n) break;
    args.maxima[blockIdx.y * n + t] = softmax.max[i];
    args.sums[blockIdx.y * n + t] = softmax.sum[i];
  }
  if (!args.weighted) return;
  const Rows<float> to{args.weighted + blockIdx.y * n * args.dim, args.dim};
  store_sums<kAccess>(weighted, to, chunk.first, n, args.dim, IntoSum::kOverwrite);
}

// A tile of negatives, a chunk of tokens.
template <Access kAccess>
__global__ void __launch_bounds__(kTileThreads, kAccess == Access::kScalars ? 2 : 1)
    sum_over_tokens(Softmax args, NegativeGradients gradients) {
  __shared__ __align__(16) SharedTile shared[2];
  const SoftmaxChunk chunk = chunk_of_block(args.tokens.size);
  float sums[4][4] = {};
  for (std::int64_t begin = chunk.begin; begin < chunk.end; begin += kTile) {
    float e[4][4];
    take_logits<kAccess>(args.negatives, chunk.first, args.tokens, begin, args, shared, e);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const std::int64_t t = begin + threadIdx.x % 16 * 4 + j;
      const bool is_token = t < args.tokens.size;
      const float max = is_token ? args.max[t] : 0, scale = is_token ? args.scale[t] : 0;
#pragma unroll
      for (int i = 0; i < 4; ++i) e[i][j] = expf(e[i][j] - max) * scale;
    }
    add_weighted_rows<kAccess>(e, args.tokens, begin, args, shared, sums);
  }
  store_sums<kAccess>(sums, gradients.of_block(args), chunk.first, args.negatives.size, args.dim,
                      gradients.into());
  const std::int64_t first_col = std::int64_t{blockIdx.z} * kTile;
  using Value = std::conditional_t<kAccess == Access::kVectors, Four, float>;
  gradients.add_parts<Value>(args, first_col, std::min<std::int64_t>(kTile, args.dim - first_col));
}

// What ends the tokens.
struct TokenEnds {
  Rows<const float> targets;
  std::int64_t num_chunks;
  Rows<float> d_hidden, d_targets;  // or null
  double* losses;                   // [blocks]
  double* loss;
  unsigned* done_blocks;
};

struct ChunkSums {
  float max;   // of all logits, the target's too
  float rest;  // the sum of the negatives' e
};

__device__ ChunkSums join_chunks(const Softmax& args, const TokenEnds& ends, std::int64_t t,
                                 float target) {
  const std::int64_t n = args.tokens.size;
  ChunkSums sums{target, 0};
  for (std::int64_t c = 0; c < ends.num_chunks; ++c) {
    sums.max = fmaxf(sums.max, args.maxima[c * n + t]);
  }
  for (std::int64_t c = 0; c < ends.num_chunks; ++c) {
    sums.rest = fmaf(expf(args.maxima[c * n + t] - sums.max), args.sums[c * n + t], sums.rest);
  }
  return sums;
}

// d_logit is scale e for a negative, and for the target minus the sum of those (1 - p itself would
// be rounding error where p is nearly 1).
template <int kFours, Access kAccess>
__global__ void __launch_bounds__(kGroupThreads) end_tokens(Softmax args, TokenEnds ends) {
  using Part = RowPart<kFours, kAccess>;
  __shared__ double of_groups[kGroupThreads];
  const std::int64_t n = args.tokens.size;
  double loss = 0;
  for_each_row(n, args.dim, [&](std::int64_t t, std::int64_t dim) {
    const Part hidden = Part::load(args.tokens.rows.row(t), dim);
    const Part target_row = Part::load(ends.targets.row(t), dim);
    const auto product = [](float a, float b) { return a * b; };
    const float target =
        args.inverse_temperature * sum_of_row(map_row(product, hidden, target_row));
    if (t >= n) return;
    const ChunkSums sums = join_chunks(args, ends, t, target);
    const double total = exp(double{target} - sums.max) + sums.rest;
    loss += log(total) + (double{sums.max} - target);
    const auto scale = static_cast<float>(args.d_loss * args.inverse_temperature / total);
    if (threadIdx.x == 0) {
      args.max[t] = sums.max;
      args.scale[t] = scale;
    }
    if (ends.d_targets.data) {
      const float factor = -sums.rest * scale;
      const auto multiply = [factor](float v) { return factor * v; };
      map_row(multiply, hidden).store(ends.d_targets.row(t), dim);
    }
    if (!ends.d_hidden.data) return;
    const auto opposite = [&](float v) { return -sums.rest * v; };
    Part d_hidden = map_row(opposite, target_row);
    for (std::int64_t c = 0; c < ends.num_chunks; ++c) {
      const float factor = expf(args.maxima[c * n + t] - sums.max);
      const auto add = [factor](float sum, float v) { return fmaf(factor, v, sum); };
      const float* const weighted = args.weighted + (c * n + t) * dim;
      d_hidden = map_row(add, d_hidden, Part::load(weighted, dim));
    }
    const auto multiply = [scale](float v) { return scale * v; };
    map_row(multiply, d_hidden).store(ends.d_hidden.row(t), dim);
  });
  if (threadIdx.x == 0) of_groups[threadIdx.y] = loss;
  __syncthreads();
  if (threadIdx.x == 0 && threadIdx.y == 0) {
    for (unsigned group = 1; group < blockDim.y; ++group) loss += of_groups[group];
    ends.losses[blockIdx.x] = loss;
  }
  if (!sum_over_blocks(ends.losses, 1, ends.done_blocks)) return;
  if (threadIdx.x == 0 && threadIdx.y == 0) *ends.loss = ends.losses[0];
}

// How many chunks of one side, of at least `least_tiles`, give the device enough blocks, with these
// tiles of the other.
std::int64_t chunks_for(std::int64_t size, std::int64_t other_tiles, std::int64_t least_tiles) {
  const std::int64_t wanted =
      (kWantedBlocks + other_tiles - 1) / std::max<std::int64_t>(other_tiles, 1);
  return std::clamp<std::int64_t>(wanted, 1,
                                  std::max<std::int64_t>(num_tiles(size) / least_tiles, 1));
}

}  // namespace

template <>
void sampled_softmax_on<DeviceType::kCuda>(const SampledSoftmax& args, DeviceSpan<double> loss,
                                           const Stream& stream) {
  const std::int64_t n = args.hidden.rows, dim = args.hidden.cols;
  const std::int64_t num_negatives = args.negatives.rows;
  std::optional<SoftmaxOnTensorCores> tensor_cores;
  if (SoftmaxOnTensorCores::take(args, stream)) {
    tensor_cores.emplace(args, stream);
  }
  const std::int64_t slices = tensor_cores ? 1 : num_tiles(dim);
  // On tensor cores, for one tile, sums would be more bytes than the rows they are of.
  const std::int64_t least_tiles = tensor_cores ? 2 : 1;
  const bool sums_rows = args.d_hidden.has_data();
  const std::int64_t sum_slices = sums_rows ? slices : 1;
  const std::int64_t chunks =
      num_negatives == 0 ? 0 : chunks_for(num_negatives, num_tiles(n) * sum_slices, least_tiles);
  Buffer<float> statistics((2 * chunks + 2) * n, stream);
  Buffer<float> weighted(sums_rows ? chunks * n * dim : 0, stream);
  Buffer<double> losses(kMostEndBlocks, stream);
  float* const maxima = statistics.device_data();
  const Softmax softmax{
      .tokens = {rows_of(args.hidden), args.target_ids.device_data(), n},
      .negatives = {rows_of(args.negatives), args.negative_ids.device_data(), num_negatives},
      .dim = dim,
      .inverse_temperature = args.inverse_temperature,
      .d_loss = args.d_loss,
      .maxima = maxima,
      .sums = maxima + chunks * n,
      .weighted = sums_rows ? weighted.device_data() : nullptr,
      .max = maxima + 2 * chunks * n,
      .scale = maxima + (2 * chunks + 1) * n};

  if (n > 0 && chunks > 0 && tensor_cores) {
    tensor_cores->sum_over_negatives(softmax, chunks, stream);
  } else if (n > 0 && chunks > 0) {
    with_access(
        [&](auto access) {
          launch(sum_over_negatives<access()>, grid_of(num_tiles(n), chunks, sum_slices),
                 kTileThreads, 0, stream, softmax);
        },
        args.hidden, args.negatives, weighted.matrix(sums_rows ? chunks * n : 0, dim));
  }

  if (n == 0) {
    fill_zero(loss, stream);
  } else {
    const TokenEnds ends{rows_of(args.targets),
                         chunks,
                         rows_of(args.d_hidden),
                         rows_of(args.d_targets),
                         losses.device_data(),
                         loss.device_data(),
                         done_blocks_of(1, kMostEndBlocks, stream)};
    with_row_groups(
        n, dim, kMostEndBlocks,
        [&](auto fours, auto access, const GroupLaunch& shape) {
          launch(end_tokens<fours(), access()>, shape.blocks, shape.block, 0, stream, softmax,
                 ends);
        },
        args.hidden, args.targets, args.d_hidden, args.d_targets,
        weighted.matrix(sums_rows ? chunks * n : 0, dim));
  }

  if (!args.d_negatives.has_data() || num_negatives == 0) return;
  const std::int64_t token_chunks = chunks_for(n, num_tiles(num_negatives) * slices, least_tiles);
  Buffer<float> parts(token_chunks > 1 ? token_chunks * num_negatives * dim : 0, stream);
  const NegativeGradients gradients{
      rows_of(args.d_negatives), token_chunks > 1 ? parts.device_data() : nullptr,
      done_blocks_of(num_tiles(num_negatives) * slices, token_chunks, stream)};
  if (tensor_cores) {
    tensor_cores->sum_over_tokens(softmax, gradients, token_chunks, stream);
  } else {
    with_access(
        [&](auto access) {
          launch(sum_over_tokens<access()>, grid_of(num_tiles(num_negatives), token_chunks, slices),
                 kTileThreads, 0, stream, softmax, gradients);
        },
        args.hidden, args.negatives, args.d_negatives,
        parts.matrix(token_chunks > 1 ? token_chunks * num_negatives : 0, dim));
  }
}

}  // namespace serrate
