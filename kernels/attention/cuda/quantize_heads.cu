// A block of threads takes one block of rows of a head after the other, a warp eight of its rows, a
// lane neighbouring columns: everything is read and written once, and rows are rotated in
// registers, by butterflies within a lane and then between lanes.
#include <cmath>

#include "kernels/attention/cuda/fp8.cuh"
#include "kernels/attention/cuda/launch_tiles.cuh"
#include "kernels/attention/fp8.h"
#include "kernels/cuda/fragments.cuh"
#include "kernels/cuda/primitives.cuh"

namespace serrate {
namespace {

constexpr int kQuantizeWarps = 8;

#if SERRATE_HAS_E4M3

constexpr int kRowsAWarp = kFp8Block / kQuantizeWarps;

// So many neighbouring values, loaded and stored at once.
template <typename T, int kCount>
struct alignas(sizeof(T) * kCount <= 16 ? sizeof(T) * kCount : 16) Values {
  T at[kCount];
};

template <int kColumns>
__device__ void load_row(const InputHeads& from, std::int64_t token, std::int64_t head,
                         float (&row)[kColumns]) {
  const int column = lane_index() * kColumns;
  if (from.type == DataType::kFloat32) {
    using Floats = Values<float, kColumns>;
    const auto values =
        *reinterpret_cast<const Floats*>(view_as<float>(from).at(token, head) + column);
#pragma unroll
    for (int c = 0; c < kColumns; ++c) row[c] = values.at[c];
  } else {
    using Halves = Values<__nv_bfloat16, kColumns>;
    const auto values =
        *reinterpret_cast<const Halves*>(view_as<__nv_bfloat16>(from).at(token, head) + column);
#pragma unroll
    for (int c = 0; c < kColumns; ++c) row[c] = __bfloat162float(values.at[c]);
  }
}

template <int kColumns>
__device__ void rotate(float (&row)[kColumns]) {
  const int first_column = lane_index() * kColumns;
  const std::uint32_t signs = fp8_signs(first_column / 32) >> first_column % 32;
#pragma unroll
  for (int c = 0; c < kColumns; ++c) row[c] = (signs >> c & 1) != 0 ? -row[c] : row[c];
#pragma unroll
  for (int step = 1; step < kColumns; step *= 2) {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      if ((c & step) != 0) continue;
      const float a = row[c], b = row[c + step];
      row[c] = a + b, row[c + step] = a - b;
    }
  }
#pragma unroll
  for (int lanes = 1; lanes < kLanes; lanes *= 2) {
    const bool is_second = (lane_index() & lanes) != 0;
#pragma unroll
    for (float& x : row) {
      const float other = __shfl_xor_sync(~0u, x, lanes);
      x = is_second ? other - x : x + other;
    }
  }
#pragma unroll
  for (float& x : row) x *= hadamard_scale(kColumns * kLanes);
}

// What is not finite becomes NaN; returns the largest magnitude of what is.
template <int kColumns>
__device__ float take_largest(float (&row)[kColumns], float largest) {
#pragma unroll
  for (float& x : row) {
    if (fabsf(x) < INFINITY) {
      largest = fmaxf(largest, fabsf(x));
    } else {
      x = NAN;
    }
  }
  return largest;
}

// The largest of the block's threads.
__device__ float largest_of_block(float largest) {
  __shared__ float of_warps[kQuantizeWarps];
  for (int lanes = 1; lanes < kLanes; lanes *= 2) {
    largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, lanes));
  }
  __syncthreads();
  if (lane_index() == 0) of_warps[thread_index() / kLanes] = largest;
  __syncthreads();
#pragma unroll
  for (const float x : of_warps) largest = fmaxf(largest, x);
  return largest;
}

// Rows are rounded, `terms` times: each one is what the one before left.
template <int kColumns>
__device__ void store_row(float (&row)[kColumns], float factor, std::int64_t terms, Float8* to) {
#pragma unroll
  for (float& x : row) x = __fmul_rn(x, factor);
  for (to += lane_index() * kColumns;; to += kColumns * kLanes) {
    Values<std::uint16_t, kColumns / 2> pairs;
#pragma unroll
    for (int c = 0; c < kColumns; c += 2) pairs.at[c / 2] = pack_e4m3(row[c], row[c + 1]);
    *reinterpret_cast<decltype(pairs)*>(to) = pairs;
    if (--terms == 0) return;
#pragma unroll
    for (int c = 0; c < kColumns; c += 2) {
      const E4m3Pair rounded = unpack_e4m3(pairs.at[c / 2]);
      row[c] -= rounded.low, row[c + 1] -= rounded.high;
    }
  }
}

// Up to kFp8Block rows of a sequence; none where a number (tile.cuh) stands for no tile.
struct RowBlock {
  std::int64_t token, count;
};

// Finds blocks of rows by rising numbers: it searches once.
class RowBlocks {
 public:
  __device__ explicit RowBlocks(std::span<const std::int64_t> offsets) : offsets_(offsets) {}

  __device__ RowBlock at(std::int64_t number) {
    if (sequence_ < 0) {
      sequence_ = tile_at(offsets_, kFp8Block, number).sequence;
      before_ = offsets_[0], begin_ = offsets_[sequence_], end_ = offsets_[sequence_ + 1];
    }
    while (number > (end_ - before_) / kFp8Block + sequence_) {
      ++sequence_;
      begin_ = end_, end_ = offsets_[sequence_ + 1];
    }
    const std::int64_t first = (begin_ - before_) / kFp8Block + sequence_;
    const std::int64_t token = begin_ + (number - first) * kFp8Block;
    return {token, std::min(end_ - token, std::int64_t{kFp8Block})};
  }

 private:
  std::span<const std::int64_t> offsets_;
  std::int64_t sequence_ = -1, before_ = 0, begin_ = 0, end_ = 0;
};

#endif

// So many blocks of rows, one after the other, for each block of threads.
template <int kDim>
__global__ void __launch_bounds__(kQuantizeWarps* kLanes)
    quantize(const __grid_constant__ QuantizeHeads args, std::int64_t scales_per_head) {
#if SERRATE_HAS_E4M3
  constexpr int kColumns = kDim / kLanes;
  __shared__ RowBlock shared_block;
  __shared__ std::int64_t shared_tasks;
  const std::span offsets(args.offsets.device_data(), args.offsets.size());
  const int first_row = thread_index() / kLanes * kRowsAWarp;
  if (thread_index() == 0) shared_tasks = num_tiles(offsets, kFp8Block) * args.num_heads;
  __syncthreads();
  const std::int64_t tasks = shared_tasks, share = ceil_div(tasks, gridDim.x);
  const std::int64_t end = std::min((blockIdx.x + 1) * share, tasks);
  RowBlocks blocks(offsets);
  std::int64_t number = blockIdx.x * share / args.num_heads;
  std::int64_t head = blockIdx.x * share % args.num_heads - 1;
  for (std::int64_t task = blockIdx.x * share; task < end; ++task) {
    if (++head == args.num_heads) head = 0, ++number;
    __syncthreads();
    if (thread_index() == 0) shared_block = blocks.at(number);
    __syncthreads();
    const std::int64_t token = shared_block.token;
    if (shared_block.count <= 0) continue;
    const std::int64_t count = shared_block.count - first_row;  // of the warp
    float rows[kRowsAWarp][kColumns];
    float largest = 0;
#pragma unroll
    for (int r = 0; r < kRowsAWarp; ++r) {
      if (r < count) load_row(args.heads, token + first_row + r, head, rows[r]);
    }
#pragma unroll
    for (int r = 0; r < kRowsAWarp; ++r) {
      if (r >= count) break;
      if (args.rotation == HeadRotation::kHadamard) rotate(rows[r]);
      largest = take_largest(rows[r], largest);
    }
    largest = largest_of_block(largest);
    const bool is_zero = largest <= kSmallestFp8Block;
    if (thread_index() == 0) {
      args.quantized.scales.device_data()[head * scales_per_head + number] =
          is_zero ? 0 : largest / kLargestFloat8;
    }
    const float factor = is_zero ? 0 : kLargestFloat8 / largest;
    const DeviceHeads<Float8>& to = args.quantized.values;
#pragma unroll
    for (int r = 0; r < kRowsAWarp; ++r) {
      if (r >= count) break;
      store_row(rows[r], factor, args.terms,
                to.device_data + (token + first_row + r) * to.token_stride + head * to.head_stride);
    }
  }
#endif
}

}  // namespace

template <>
void quantize_heads_on<DeviceType::kCuda>(const QuantizeHeads& args, const Stream& stream) {
  with_fp8_head_dim(args.head_dim, [&](auto dim) {
    check_has_e4m3(quantize<dim()>);
    launch(quantize<dim()>, static_cast<unsigned>(8 * processors_of(stream)),
           dim3(kThreadsX, 4 * kQuantizeWarps), 0, stream, args,
           static_cast<std::int64_t>(args.quantized.scales.size()) / args.num_heads);
  });
}

}  // namespace serrate
