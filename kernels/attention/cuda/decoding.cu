// Decoding without tensor cores, and what follows it on either: blocks that have a chunk of a
// sequence's keys each leave partials, which a kernel combines in the order of the chunks.
#include "kernels/attention/cuda/decoding.cuh"

#include "kernels/attention/cuda/forward_tile.cuh"
#include "kernels/attention/cuda/launch_tiles.cuh"
#include "kernels/attention/cuda/tensor_cores.h"

namespace serrate {
namespace {

// Tiles of 16 rows and 16 keys, as rows are few.
template <int kDim>
using DecodingShape = TileShape<16, kDim>;

// A bit for each of a thread's pairs, like visible_pairs.
template <class Shape>
__device__ unsigned visible_rows(const AttentionView& args, const DecodingTask& task,
                                 const TilePair& at) {
  const std::int64_t row = at.first_query + threadIdx.y, query = task.query_of(row);
  if (row >= task.rows) return 0;
  const TwoRanges keys = keys_of(args, task.at, query);
  unsigned visible = 0;
#pragma unroll
  for (int m = 0; m < Shape::kColumns; ++m) {
    const std::int64_t key = at.first_key + first_column<Shape>() + m;
    const bool is_visible = key < at.num_keys &&
                            (contains(keys[0], key) || contains(keys[1], key)) &&
                            lets_see(args, at, query, key);
    visible |= static_cast<unsigned>(is_visible) << m;
  }
  return visible;
}

// The block has read the rows before.
template <class Shape>
__device__ void load_query_rows(const AttentionView& args, const DecodingTask& task,
                                std::int64_t first_row, float* to) {
#pragma unroll 1
  for (int row = thread_index() / kLanes; row < Shape::kTile; row += kWarps) {
    const std::int64_t r = first_row + row;
    for (int column = lane_index(); column < args.head_dim; column += kLanes) {
      to[row * Shape::kStride + column] =
          r < task.rows
              ? load(args.q, task.at.queries.in_q + task.query_of(r), task.head_of(r), column)
              : 0;
    }
  }
}

// What a chunk of keys adds up to for a thread's row of the 16 from at.first_query on.
template <class Shape>
__device__ PartialRow<Shape::kDims> attend_chunk(const AttentionView& args,
                                                 const DecodingTask& task, TilePair at,
                                                 std::int64_t chunk,
                                                 const ForwardTiles<Shape>& tiles) {
  Softmax<Shape> softmax;
  RowSums<Shape> out;
  set_zero<Shape>(out);
  const std::int64_t end = task.end_of_keys(chunk);
  for (at.first_key = chunk * task.chunk_keys; at.first_key < end; at.first_key += Shape::kTile) {
    const unsigned visible = visible_rows<Shape>(args, task, at);
    if (__syncthreads_or(visible != 0) == 0) continue;
    add_keys<Shape>(args, at, visible, tiles, softmax, out);
  }
  PartialRow<Shape::kDims> result;
#pragma unroll
  for (int m = 0; m < Shape::kDims; ++m) result.out[m] = out[0][m];
  result.sum = {is_softmax(args) ? softmax.max[0] : 0, softmax.sum[0]};
  return result;
}

// One task after the other for each block, its rows 16 at a time.
template <class Shape>
__global__ void __launch_bounds__(kThreadsX* kThreadsY, 2)
    decode(const __grid_constant__ AttentionView args, const WorkList work,
           const DecodingCall call) {
  const ForwardTiles<Shape> tiles;
  const std::int64_t num_tasks = num_decoding_tasks(args, work);
  for (std::int64_t index = blockIdx.x; index < num_tasks; index += gridDim.x) {
    const DecodingTask task = decoding_task_at(args, work, call, index);
    TilePair at = task.at;
    for (at.first_query = task.first_row; at.first_query < task.end_row;
         at.first_query += Shape::kTile) {
      __syncthreads();
      load_query_rows<Shape>(args, task, at.first_query, tiles.q);
      __syncthreads();
      const std::int64_t row = at.first_query + threadIdx.y;
      PartialRow<Shape::kDims> total;
      for (std::int64_t chunk = task.first_chunk; chunk < task.end_chunk; ++chunk) {
        const PartialRow<Shape::kDims> next = attend_chunk<Shape>(args, task, at, chunk, tiles);
        if (!task.is_cut()) {
          total.add(next);
        } else if (row < task.rows) {
          write_partial(args, call, task.partial_of(chunk, row), next);
        }
      }
      if (!task.is_cut() && row < task.rows) write_finished(args, task, row, total);
    }
  }
}

// The blocks of a sequence's chunks share its rows: of each, a thread has some columns.
__global__ void __launch_bounds__(kThreadsX* kThreadsY)
    combine_chunks(const __grid_constant__ AttentionView args, const WorkList work,
                   const DecodingCall call) {
  __shared__ DecodingTask task;
  const std::int64_t num_tasks = num_decoding_tasks(args, work);
  for (std::int64_t index = blockIdx.x; index < num_tasks; index += gridDim.x) {
    __syncthreads();  // the task before is done
    if (thread_index() == 0) {
      const DecodingTask found = decoding_task_at(args, work, call, index);
      task = found;
    }
    __syncthreads();
    if (!task.is_cut()) continue;
    for (std::int64_t row = task.first_row + task.first_chunk; row < task.end_row;
         row += task.num_chunks) {
      const int lane = lane_index();
      for (int first = thread_index() - lane; first < args.head_dim;
           first += kThreadsX * kThreadsY) {
        const int column = first + lane;
        RowSum sum;
        float x = 0;
#pragma unroll 4
        for (std::int64_t chunk = 0; chunk < task.num_chunks; ++chunk) {
          const std::int64_t partial = task.partial_of(chunk, row);
          // A lane reads one of the two, all lanes of a warp at once.
          const float of_chunk = call.max_and_sum(args, partial)[lane % 2];
          const RowSum next{__shfl_sync(~0u, of_chunk, 0), __shfl_sync(~0u, of_chunk, 1)};
          x = fold(fold(sum, next), x,
                   column < args.head_dim ? call.row(args, partial)[column] : 0);
        }
        if (column >= args.head_dim) continue;
        store(finished(args, sum, x), args.out, task.at.queries.in_out + task.query_of(row),
              task.head_of(row), column);
        if (column == 0) write_lse(args, task, row, sum);
      }
    }
  }
}

}  // namespace

std::int64_t most_rows(const AttentionView& args, const Stream& stream) {
  // These decode by the plain kernels.
  if (args.in_tf32 || !tensor_cores_have(args.head_dim)) return most_few_rows(args.head_dim);
  const std::int64_t most = most_candidate_rows(args.head_dim);
  return args.head_dim >= 64 && is_hopper(stream) ? std::min(2 * kTaskRows, most) : most;
}

std::int64_t most_partial_rows(const AttentionView& args, const Stream& stream) {
  constexpr std::int64_t kRowsOfProcessor = 256;
  if (!may_decode(args)) return 0;
  const std::int64_t of_head = args.num_shared_queries > 0
                                   ? args.num_shared_queries * heads_per_key_head(args)
                                   : args.most_decoding_rows;
  return std::min(kRowsOfProcessor * processors_of(stream),
                  batch_size_of(args) * args.num_key_heads * of_head * most_chunks(args));
}

void forward_of_decoding(const AttentionView& args, const WorkList& work, const Stream& stream) {
  const auto room = static_cast<std::int64_t>(args.partials.size());
  const DecodingCall call{decoding_heads(args), args.partials.data(), room / (args.head_dim + 2)};
  // With 256 columns, biases and such leave too few registers; in float32 memory takes longest, and
  // products are exact.
  const bool is_plain = args.q.type == DataType::kFloat32 ||
                        (args.head_dim == 256 && extras_of(args) != Extras::kNone);
  if (forward_takes_tensor_cores(args, stream) && !is_plain) {
    decode_on_tensor_cores(args, work, call, stream);
  } else {
    with_tile_shape(args.head_dim, [&](auto shape) {
      using Shape = DecodingShape<decltype(shape)::kDim>;
      launch_tiles(decode<Shape>, ForwardTiles<Shape>::kSize, stream, args, work, call);
    });
  }
  launch(combine_chunks, static_cast<unsigned>(8 * processors_of(stream)),
         dim3(kThreadsX, kThreadsY), 0, stream, args, work, call);
}

}  // namespace serrate
