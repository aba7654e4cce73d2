// Decoding on tensor cores, for halves. A block of four warps has the rows of a task: up to 16,
// of which each warp takes a quarter of every tile of 64 keys, or up to 64, 16 a warp. At the end
// of a chunk the warps' sums meet in shared memory, and eight threads go on with a row.
#include "kernels/attention/cuda/decoding.cuh"
#include "kernels/attention/cuda/launch_tiles.cuh"
#include "kernels/attention/cuda/mma/key_slots.cuh"
#include "kernels/attention/cuda/mma/weights.cuh"
#include "kernels/attention/cuda/tensor_cores.h"

namespace serrate {
namespace {

// kWarps x 16 rows of sums of values in shared memory. A row is 8 floats longer than it has
// columns, so that four that follow one another are in different banks. Two of these are what
// softmax has of the row: not the same ones in the next four.
template <int kDim>
struct StagedRows {
  static constexpr std::int64_t kStride = kDim + 8;
  static constexpr std::int64_t bytes(int rows) { return rows * kStride * 4; }
  float* data;

  __device__ float* at(int row, int column) const { return data + row * kStride + column; }
  __device__ float* max_and_sum(int row) const { return at(row, kDim + row / 4 % 4 * 2); }
  // A thread's part of one of its rows.
  __device__ PartialRow<kDim / 8> row(int row) const {
    PartialRow<kDim / 8> result;
#pragma unroll
    for (int m = 0; m < kDim / 8; ++m) result.out[m] = *at(row, thread_index() % 8 + 8 * m);
    result.sum = {max_and_sum(row)[0], max_and_sum(row)[1]};
    return result;
  }
  __device__ void set(int row, const PartialRow<kDim / 8>& x) const {
#pragma unroll
    for (int m = 0; m < kDim / 8; ++m) *at(row, thread_index() % 8 + 8 * m) = x.out[m];
    __syncwarp(0xFFu << lane_index() / 8 * 8);  // all eight have read what the row was
    const int i = thread_index() % 8;
    if (i < 2) max_and_sum(row)[i] = i == 0 ? x.sum.max : x.sum.sum;
  }
};

// Warps of a block that have rows of their own; the others have other keys.
template <int kRowWarps, int kDim>
struct DecodingBlock {
  static constexpr int kRows = kRowWarps * kWarpRows, kKeyWarps = kWarps / kRowWarps;
  static constexpr std::int64_t kQueryBytes = 2 * kRows * kDim;
  static constexpr std::int64_t bytes(int slots) {
    return kQueryBytes + StagedRows<kDim>::bytes(kRows) +
           std::max(slots * slot_bytes(2 * kDim), StagedRows<kDim>::bytes(kWarps * kWarpRows));
  }

  TileList<kWarps> list;
  KeyRanges ranges[kWarps * kWarpRows];
  WarpTask tasks[kWarps];  // whose queries are the rows of all heads
  DecodingTask task;
};

template <class Block, int kDim, class Half>
__device__ void copy_query_rows(const AttentionView& args, const DecodingTask& task,
                                SwizzledRows<kDim, Half> to) {
  constexpr int kChunks = kDim / 8;
  const HeadsView<const Half> q = view_as<Half>(args.q);
  for (int i = thread_index(); i < Block::kRows * kChunks; i += kWarps * kLanes) {
    const int chunk = i % kChunks;
    const std::int64_t row = task.first_row + i / kChunks;
    Half* const place = to.at(i / kChunks, chunk);
    if (row < task.end_row) {
      copy_async(place,
                 q.at(task.at.queries.in_q + task.query_of(row), task.head_of(row)) + chunk * 8);
    } else {
      *reinterpret_cast<uint4*>(place) = {};
    }
  }
}

// A warp's sums of its rows over its keys, to shared memory.
template <int kDim>
__device__ void stage(const AttentionView& args, const Fragment<kDim / 8>& sums,
                      const OnlineSoftmax& softmax, StagedRows<kDim> to) {
  const float scale = scale_of_sums(args);
  const int first_row = thread_index() / kLanes * kWarpRows + lane_index() / 4;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = first_row + 8 * r;
    const float sum = sum_of_four(softmax.sum[r]);
    const float max = is_softmax(args) ? softmax.max[r] : 0;
    const int i = lane_index() % 4;
    if (i < 2) to.max_and_sum(row)[i] = i == 0 ? max : sum;
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
      const float2 pair{scale * sums[n][2 * r], scale * sums[n][2 * r + 1]};
      *reinterpret_cast<float2*>(to.at(row, 8 * n + lane_index() % 4 * 2)) = pair;
    }
  }
}

// One task of its number of rows after the other for each block.
template <int kDim, class Half, Extras kExtras, int kRowWarps>
__global__ void __launch_bounds__(kWarps* kLanes, kDim <= 128 ? 2 : 1)
    decode(const __grid_constant__ AttentionView args, const WorkList work, const DecodingCall call,
           const int num_slots) {
  using Block = DecodingBlock<kRowWarps, kDim>;
  constexpr int kKeys = kMmaTile / Block::kKeyWarps, kBlocks = std::min(kKeys / 8, 4);
  __shared__ Block state;
  static_assert(sizeof(state) <= kStaticBytes);
  const int warp = thread_index() / kLanes, lane = lane_index();
  const int own_row = kRowWarps > 1 ? warp * kWarpRows : 0;  // the warp's first of the task's
  const int first_key_of_warp = kRowWarps > 1 ? 0 : warp * kKeys;
  using Rows = SwizzledRows<kDim, Half>;
  const Rows q{dynamic_shared<Half>()};
  const StagedRows<kDim> totals{reinterpret_cast<float*>(q.data + Block::kRows * kDim)};
  float* const rest = totals.data + StagedRows<kDim>::bytes(Block::kRows) / 4;
  const StagedRows<kDim> staged{rest};  // where tiles of keys are before
  KeySlots<kDim, kWarps, Half> slots(reinterpret_cast<Half*>(rest), num_slots);
  KeyRanges* const ranges = state.ranges + warp * kWarpRows;
  WarpTask& warp_task = state.tasks[warp];
  const DecodingTask& task = state.task;
  const std::int64_t num_tasks = num_decoding_tasks(args, work);
  for (std::int64_t index = blockIdx.x; index < num_tasks; index += gridDim.x) {
    __syncthreads();  // the task before is done
    if (thread_index() == 0) {
      const DecodingTask found = decoding_task_at(args, work, call, index);
      state.task = found;
    }
    __syncthreads();
    if (task.is_wide != (kRowWarps > 1)) continue;  // of the other kernel
    const int first_row = static_cast<int>(task.first_row) + own_row;
    copy_query_rows<Block>(args, task, q);
    if (lane < kWarpRows) {
      const KeyRanges keys = key_ranges(args, task.at, task.query_of(first_row + lane));
      ranges[lane] = keys;
    }
    for (std::int64_t chunk = task.first_chunk; chunk < task.end_chunk; ++chunk) {
      if (lane == 0) {
        WarpTask of_chunk{task.at, task.key_head, 0, 0, kMmaTile, 1};
        of_chunk.at.queries.count = task.rows, of_chunk.at.first_query = first_row;
        of_chunk.at.num_keys = task.end_of_keys(chunk);
        warp_task = of_chunk;
      }
      __syncwarp();
      const TilePair& at = warp_task.at;
      Fragment<kDim / 8> sums = {};
      OnlineSoftmax softmax;
      LaneTile tile{first_row + lane / 4, ranges, 0, 0, false};
      slots.forget();
      slots.for_each_tile(
          args, warp_task, ranges, state.list,
          [&](int first_key, TileClass seen, Rows k, Rows v) {
            tile.is_full = seen.is_full;
#pragma unroll 1
            for (int column = 0; column < kKeys; column += 8 * kBlocks) {
              const int key = first_key_of_warp + column;
              tile.first_key = first_key + key;
              tile.num_columns =
                  static_cast<int>(std::min<std::int64_t>(at.num_keys - tile.first_key, kKeys));
              if (seen.is_empty || tile.num_columns <= 0) break;
              Fragment<kBlocks> scores;
              multiply_rows<kDim, kBlocks>(q, own_row, k, key, tile.num_columns, scores);
              float factors[2];
              weigh<kExtras, kBlocks>(args, at, tile, scores, softmax, factors);
              if (is_softmax(args)) scale_rows(sums, factors);
              add_weighted_rows<kDim, kDim, kBlocks>(scores, v, key, tile.num_columns, 0, sums);
            }
          },
          static_cast<int>(chunk * task.chunk_keys / kMmaTile));
      __syncthreads();  // the last tile has been read
      stage<kDim>(args, sums, softmax, staged);
      __syncthreads();
#pragma unroll 1
      for (int b = 0; b < kRowWarps; ++b) {
        const int row = b * kWarpRows + thread_index() / 8;
        const std::int64_t task_row = task.first_row + row;
        if (task_row >= task.end_row) break;
        PartialRow<kDim / 8> of_chunk;
#pragma unroll
        for (int w = 0; w < Block::kKeyWarps; ++w) {
          of_chunk.add(staged.row(w * kWarpRows + row));
        }
        if (task.is_cut()) {
          write_partial(args, call, task.partial_of(chunk, task_row), of_chunk);
          continue;
        }
        PartialRow<kDim / 8> total;
        if (chunk > 0) total = totals.row(row);
        total.add(of_chunk);
        totals.set(row, total);
        if (chunk + 1 == task.num_chunks) write_finished(args, task, task_row, total);
      }
    }
  }
}

template <int kDim, class Half, Extras kExtras>
void run(const AttentionView& args, const WorkList& work, const DecodingCall& call,
         const Stream& stream) {
  const auto decode_rows = [&](auto row_warps) {
    using Block = DecodingBlock<row_warps(), kDim>;
    const int slots = Block::bytes(2) <= shared_bytes_of(stream) ? 2 : 1;
    launch_warps(decode<kDim, Half, kExtras, row_warps()>,
                 {kWarps, Block::bytes(slots), Block::bytes(slots)}, stream, args, work, call,
                 slots);
  };
  const std::int64_t least_rows =
      std::max<std::int64_t>(args.num_shared_queries, 1) * heads_per_key_head(args);
  if (least_rows <= kWarpRows) decode_rows(std::integral_constant<int, 1>());
  if constexpr (most_few_rows(kDim) > kWarpRows) {
    if (args.num_shared_queries == 0 || least_rows > kWarpRows) {
      decode_rows(std::integral_constant<int, kWarps>());
    }
  }
}

}  // namespace

void decode_on_tensor_cores(const AttentionView& args, const WorkList& work,
                            const DecodingCall& call, const Stream& stream) {
  with_halves<256>(args, [&](auto dim, auto half) {
    using Half = decltype(half);
    if constexpr (dim() < 256) {
      if (extras_of(args) == Extras::kAny) {
        return run<dim(), Half, Extras::kAny>(args, work, call, stream);
      }
    }
    run<dim(), Half, Extras::kNone>(args, work, call, stream);
  });
}

}  // namespace serrate
