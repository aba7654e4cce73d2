// Forward, a token is the sum of some rows, elementwise. Backward, a block has some tokens and some
// positions: each of its warps looks through the tokens for those at a position of its own, passes
// their gradients on and adds them up in registers, in order; of the blocks of a position the last
// one adds up what all of them found, in the order of the tokens. So each gradient is read once.
#include <algorithm>

#include "kernels/cuda/block_sums.cuh"
#include "kernels/dense/cuda/token_rows.cuh"
#include "serrate/buffer.h"

namespace serrate {
namespace {

template <Access kAccess>
struct Tokens {
  TokenRows tokens;
  Rows<float> x;
  std::int64_t cols;

  __device__ void operator()(std::int64_t t, std::int64_t c) const {
    store_four<kAccess>(tokens.load<kAccess>(t, c, cols), x.row(t), c, cols);
  }
};

constexpr unsigned kWarp = 32, kWarps = 8;
constexpr int kPositionsPerWarp = 2;
constexpr std::int64_t kPositionsPerBlock = kPositionsPerWarp * kWarps;
constexpr std::int64_t kTokenTile = 1024;
constexpr std::int64_t kMostParts = 64;

// TokenEmbeddingBackward as a kernel sees it.
struct TokenGradients {
  Rows<const float> d_x;
  const std::int64_t* positions;
  float scale;
  FeatureList<float> list;
  float* parts;  // [gridDim.y, max_length, cols]: sums over each block's tokens
  Rows<float> d_position;
  unsigned* done_blocks;
  std::int64_t num_tokens, tokens_per_block, max_length, cols;
};

// Adds the gradients of these of a warp's 32 tokens to a sum, and passes them on to the features.
template <Access kAccess>
__device__ void take_gradients(const TokenGradients& args, std::int64_t first, unsigned tokens,
                               std::int64_t c, Four& sum) {
  constexpr int kAtOnce = 4;  // loads in flight
  while (tokens) {
    std::int64_t token[kAtOnce];
    Four d[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      token[i] = tokens ? first + __ffs(static_cast<int>(tokens)) - 1 : -1;
      tokens &= tokens - 1;
      if (token[i] >= 0) d[i] = load_four<kAccess>(args.d_x.row(token[i]), c, args.cols);
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if (token[i] < 0) continue;
      sum = map_four([](float a, float b) { return a + b; }, sum, d[i]);
      const Four scaled = map_four([&](float v) { return args.scale * v; }, d[i]);
      for (int f = 0; f < args.list.count; ++f) {
        store_four<kAccess>(scaled, args.list.features[f].row(token[i]), c, args.cols);
      }
    }
  }
}

// Adds what the blocks of these positions have left to d_position. T: float, or Four.
template <typename T>
__device__ void add_parts_of_tokens(const TokenGradients& args) {
  const std::int64_t first = blockIdx.x * kPositionsPerBlock;
  const std::int64_t rows = std::min(std::int64_t{kPositionsPerBlock}, args.max_length - first);
  float* const part = args.parts + first * args.cols;
  const auto parts =
      SummedParts<T>::of(part, args.max_length * args.cols, args.cols, rows, args.cols);
  unsigned* const done_blocks = args.done_blocks + blockIdx.x * counters_of_sum(gridDim.y);
  if (!sum_over_blocks(parts, blockIdx.y, gridDim.y, done_blocks)) return;
  for_each_value_of_block(parts.rows, static_cast<unsigned>(args.cols),
                          [&](unsigned row, unsigned c) {
                            args.d_position.row(first + row)[c] += part[row * args.cols + c];
                          });
}

// blockIdx.x: positions; blockIdx.y: tokens. A warp is a row of the block's threads.
template <Access kAccess>
__global__ void token_embedding_backward_tokens(TokenGradients args) {
  __shared__ std::int64_t positions[kTokenTile];
  const std::int64_t begin = std::int64_t{blockIdx.y} * args.tokens_per_block;
  const std::int64_t end = std::min(begin + args.tokens_per_block, args.num_tokens);
  const std::int64_t first = std::int64_t{blockIdx.x} * kPositionsPerBlock + threadIdx.y;
  for (std::int64_t c = threadIdx.x * 4; c - threadIdx.x * 4 < args.cols; c += kWarp * 4) {
    Four sums[kPositionsPerWarp] = {};
    for (std::int64_t tile = begin; tile < end; tile += kTokenTile) {
      const std::int64_t size = std::min(std::int64_t{kTokenTile}, end - tile);
      __syncthreads();
      for (std::int64_t t = threadIdx.y * kWarp + threadIdx.x; t < size; t += kWarp * kWarps) {
        positions[t] = args.positions[tile + t];
      }
      __syncthreads();
      for (std::int64_t t = 0; t < size; t += kWarp) {
        const std::int64_t position = t + threadIdx.x < size ? positions[t + threadIdx.x] : -1;
#pragma unroll
        for (int i = 0; i < kPositionsPerWarp; ++i) {
          const unsigned found = __ballot_sync(0xffffffff, position == first + i * kWarps);
          if (c < args.cols) take_gradients<kAccess>(args, tile + t, found, c, sums[i]);
        }
      }
    }
#pragma unroll
    for (int i = 0; i < kPositionsPerWarp; ++i) {
      const std::int64_t position = first + i * kWarps;
      if (position >= args.max_length) continue;
      float* const part = args.parts + (blockIdx.y * args.max_length + position) * args.cols;
      store_four<kAccess>(sums[i], part, c, args.cols);
    }
  }
  if (kAccess == Access::kVectors && args.cols % 4 == 0) {
    add_parts_of_tokens<Four>(args);
  } else {
    add_parts_of_tokens<float>(args);
  }
}

}  // namespace

template <>
void token_embedding_forward_on<DeviceType::kCuda>(const TokenEmbeddingForward& args,
                                                   const Stream& stream) {
  const auto start = [&](auto access) {
    const Tokens<access()> tokens{TokenRows(args), rows_of(args.x), args.x.cols};
    launch_for_each_four(args.x.rows, args.x.cols, tokens, stream);
  };
  with_access(start, args.position, args.x, args.features);
}

template <>
void token_embedding_backward_on<DeviceType::kCuda>(const TokenEmbeddingBackward& args,
                                                    const Stream& stream) {
  const std::int64_t n = args.d_x.rows, cols = args.d_x.cols;
  const std::int64_t max_length = args.d_position.rows;
  if (n == 0 || cols == 0) return;
  const std::int64_t tokens_per_block = std::max(kTokenTile, (n + kMostParts - 1) / kMostParts);
  const std::int64_t num_parts = (n + tokens_per_block - 1) / tokens_per_block;
  const std::int64_t position_blocks = (max_length + kPositionsPerBlock - 1) / kPositionsPerBlock;
  Buffer<float> parts(num_parts * max_length * cols, stream);
  const TokenGradients backward{rows_of(args.d_x),
                                args.positions.device_data(),
                                args.scale,
                                feature_list(args.d_features),
                                parts.device_data(),
                                rows_of(args.d_position),
                                done_blocks_of(position_blocks, num_parts, stream),
                                n,
                                tokens_per_block,
                                max_length,
                                cols};
  const dim3 grid(static_cast<unsigned>(position_blocks), static_cast<unsigned>(num_parts));
  with_access(
      [&](auto access) {
        launch(token_embedding_backward_tokens<access()>, grid, dim3(kWarp, kWarps), 0, stream,
               backward);
      },
      args.d_x, args.d_features, parts.matrix(num_parts * max_length, cols));
}

}  // namespace serrate
