// The backward of attention: probabilities come back from scores and log-sum-exp, tile by tile.
// Each gradient is summed by one block in one order: a first kernel takes tiles of queries, for d_q
// and what biases get, and a second one tiles of keys, for d_k and d_v. Scores are computed twice;
// nothing is added atomically.
#include <algorithm>
#include <cmath>

#include "kernels/attention/cuda/backward_tile.cuh"
#include "kernels/attention/cuda/bias_gradients.cuh"
#include "kernels/attention/cuda/launch_tiles.cuh"
#include "kernels/attention/cuda/ordered_sums.h"
#include "kernels/attention/cuda/tensor_cores.h"
#include "serrate/buffer.h"

namespace serrate {
namespace {

// ---- d_q, and gradients of biases and tables ------------------------------------------------

// What one block sums: the tiles of queries first_tile, first_tile + step, ... (to the last, or
// only one) of sequences and heads, whose gradients of biases may be the same.
struct QueryTask {
  std::int64_t sequence_begin, sequence_end, head_begin, head_end, first_tile, step;
};

// Which of them are one task's.
struct QueryTasks {
  bool all_sequences, all_heads, all_tiles;

  // Blocks that share the tiles of all sequences.
  static constexpr std::int64_t kParts = 32;

  explicit QueryTasks(const AttentionBackwardView& args)
      : all_sequences(args.forward.num_shared_queries > 0 ||
                      (args.d_bias && args.forward.bias.sequence_stride == 0)),
        all_heads(args.d_bias && args.forward.bias.head_stride == 0),
        all_tiles(!args.d_position_table.empty() || !args.d_time_table.empty() ||
                  (args.d_bias && args.forward.bias.query_stride == 0)) {}

  __device__ std::int64_t tiles(const AttentionView& args, int tile) const {
    if (all_sequences) return all_tiles ? 1 : kParts;
    return all_tiles ? batch_size_of(args) : num_query_tiles(args, tile);
  }
  __device__ std::int64_t size(const AttentionView& args, int tile) const {
    return tiles(args, tile) * (all_heads ? 1 : args.num_heads);
  }
  __device__ QueryTask at(const AttentionView& args, int tile, std::int64_t index) const {
    const std::int64_t heads = all_heads ? 1 : args.num_heads;
    const std::int64_t head = index % heads, number = index / heads;
    QueryTask task{0, batch_size_of(args), head, all_heads ? args.num_heads : head + 1, 0, 1};
    if (all_sequences) {
      if (!all_tiles) task.first_tile = number, task.step = kParts;
      return task;
    }
    TilePlace place{number, 0};
    if (!all_tiles) {
      place = query_tile_at(args, tile, number);
      task.step = 0;  // only one
    }
    task.sequence_begin = place.sequence, task.sequence_end = place.sequence + 1;
    task.first_tile = place.first / tile;
    return task;
  }
};

// delta of each query of a tile: d_out is in shared memory. In the order of multiply(), so that the
// gradient of a query that sees one key is 0.
template <class Shape>
__device__ __forceinline__ void sum_deltas(const Call& call, const TilePair& at,
                                           const Tiles<Shape>& tiles,
                                           QuerySums (&sums)[Shape::kRows]) {
  const AttentionView& args = call.args.forward;
  for_each_row<Shape>([&](int row, int r) {
    const std::int64_t query = at.first_query + row;
    sums[r] = query_sums(args, at, query, nullptr);
    if (!is_softmax(args) || query >= at.queries.count) return;
#pragma unroll 1
    for (int column = 0; column < static_cast<int>(args.head_dim); ++column) {
      sums[r].delta =
          fmaf(tiles.d_out[row * Shape::kStride + column],
               load(args.out, at.queries.in_out + query, at.head, column), sums[r].delta);
    }
    if (threadIdx.x == 0) {
      call.deltas[at.head * (static_cast<std::int64_t>(args.lse.size()) / args.num_heads) +
                  at.queries.in_out + query] = sums[r].delta;
    }
  });
}

// d_q of a tile of queries of one sequence in one head.
template <class Shape>
__device__ __forceinline__ void sum_d_q(const Call& call, TilePair at, const Tiles<Shape>& tiles,
                                        RowSums<Shape>& d_q) {
  const AttentionView& args = call.args.forward;
  set_zero<Shape>(d_q);
  __syncthreads();  // the tiles before have been read
  load_queries<Shape>(call.args, at, tiles);
  __syncthreads();
  QuerySums sums[Shape::kRows];
  sum_deltas<Shape>(call, at, tiles, sums);
  for (; at.first_key < at.num_keys; at.first_key += Shape::kTile) {
    const unsigned visible = visible_pairs<Shape>(args, at);
    if (__syncthreads_or(visible != 0) == 0) continue;
    load_keys<Shape>(args, at, tiles);
    __syncthreads();
    Scores<Shape> weights, d_scores;
    score_gradients<Shape>(args, at, visible, sums, tiles, weights, d_scores);
    write_scores<Shape>(d_scores, tiles.d_scores);
    __syncwarp();  // a row is of one warp
    add_product<Shape, Weights::kAsTheyAre>(
        tiles.d_scores, tiles.k, std::min<std::int64_t>(at.num_keys - at.first_key, Shape::kTile),
        static_cast<int>(args.head_dim), d_q);
    add_to_biases<Shape>(call, at, visible, tiles);
  }
}

// Calls f(value in tiles.sum, value of d_q) for a thread's own.
template <class Shape, typename F>
__device__ __forceinline__ void for_each_sum(const Tiles<Shape>& tiles, int head_dim,
                                             RowSums<Shape>& d_q, F&& f) {
  for_each_row<Shape>([&](int row, int r) {
    for_each_dim<Shape>(head_dim, [&](int column, int m) {
      f(tiles.sum[row * Shape::kStride + column], d_q[r][m]);
    });
  });
}

// d_q of the tiles of queries from `first` on, one of each sequence of a task; of shared queries
// their sum, in the order of the sequences. Returns whether more tiles may follow.
template <class Shape>
__device__ __forceinline__ bool sum_each_d_q(const Call& call, const QueryTask& task,
                                             std::int64_t head, std::int64_t first,
                                             const Tiles<Shape>& tiles) {
  const AttentionView& args = call.args.forward;
  const bool is_shared = args.num_shared_queries > 0;
  const int head_dim = static_cast<int>(args.head_dim);
  bool has_tile = false;
  RowSums<Shape> d_q;
  if (is_shared) for_each_sum(tiles, head_dim, d_q, [](float& sum, float) { sum = 0; });
  for (std::int64_t s = task.sequence_begin; s < task.sequence_end; ++s) {
    TilePair at = pair_of(args, s, head);
    at.first_query = first;
    const std::int64_t count = at.queries.count - first;
    if (count <= 0) continue;
    has_tile = true;
    sum_d_q<Shape>(call, at, tiles, d_q);
    if (is_shared) {
      for_each_sum(tiles, head_dim, d_q, [&](float& sum, float x) { sum += args.scale * x; });
    } else {
      store_rows<Shape>(d_q, args.scale, call.args.d_q, at.queries.in_q + first, head, count,
                        head_dim);
    }
  }
  if (!is_shared) return has_tile && task.step > 0;
  for_each_sum(tiles, head_dim, d_q, [](float sum, float& x) { x = sum; });
  const std::int64_t count = args.num_shared_queries - first;
  store_rows<Shape>(d_q, 1, call.args.d_q, first, head, count, head_dim);
  return count > 0;
}

// One task after the other for each block; heads, tiles and sequences of a task in this order.
template <class Shape>
__global__ void __launch_bounds__(kThreadsX* kThreadsY, 2)
    backward_of_queries(const __grid_constant__ Call call, const QueryTasks tasks) {
  const AttentionView& args = call.args.forward;
  const Tiles<Shape> tiles;
  const std::int64_t num_tasks = tasks.size(args, Shape::kTile);
  for (std::int64_t index = blockIdx.x; index < num_tasks; index += gridDim.x) {
    const QueryTask task = tasks.at(args, Shape::kTile, index);
    for (std::int64_t head = task.head_begin; head < task.head_end; ++head) {
      std::int64_t first = task.first_tile * Shape::kTile;
      while (sum_each_d_q<Shape>(call, task, head, first, tiles)) {
        first += task.step * Shape::kTile;
      }
    }
  }
}

// ---- d_k and d_v ----------------------------------------------------------------------------

// A tile of keys of one head of keys after the other for each block; the queries go by in tiles,
// those of all heads that share the keys.
template <class Shape>
__global__ void __launch_bounds__(kThreadsX* kThreadsY, 2)
    backward_of_keys(const __grid_constant__ Call call) {
  const AttentionView& args = call.args.forward;
  const int head_dim = static_cast<int>(args.head_dim);
  const Tiles<Shape> tiles;
  const std::int64_t group = heads_per_key_head(args);
  const std::int64_t num_tasks = num_tiles(args.key_offsets, Shape::kTile) * args.num_key_heads;
  for (std::int64_t task = blockIdx.x; task < num_tasks; task += gridDim.x) {
    const TilePlace tile = tile_at(args.key_offsets, Shape::kTile, task / args.num_key_heads);
    const std::int64_t key_head = task % args.num_key_heads;
    TilePair at = pair_of(args, tile.sequence, key_head * group);
    at.first_key = tile.first;
    if (at.first_key >= at.num_keys) continue;
    __syncthreads();  // the tiles before have been read
    load_keys<Shape>(args, at, tiles);
    RowSums<Shape> d_k, d_v;
    set_zero<Shape>(d_k);
    set_zero<Shape>(d_v);
    for (; at.head < (key_head + 1) * group; ++at.head) {
      for (at.first_query = 0; at.first_query < at.queries.count; at.first_query += Shape::kTile) {
        const unsigned visible = visible_pairs<Shape>(args, at);
        if (__syncthreads_or(visible != 0) == 0) continue;
        load_queries<Shape>(call.args, at, tiles);
        QuerySums sums[Shape::kRows];
        for_each_row<Shape>([&](int row, int r) {
          sums[r] = query_sums(args, at, at.first_query + row, call.deltas);
        });
        __syncthreads();
        Scores<Shape> weights, d_scores;
        score_gradients<Shape>(args, at, visible, sums, tiles, weights, d_scores);
        write_scores<Shape>(weights, tiles.weights);
        write_scores<Shape>(d_scores, tiles.d_scores);
        __syncthreads();
        const auto queries =
            std::min<std::int64_t>(at.queries.count - at.first_query, Shape::kTile);
        add_product<Shape, Weights::kTransposed>(tiles.weights, tiles.d_out, queries, head_dim,
                                                 d_v);
        add_product<Shape, Weights::kTransposed>(tiles.d_scores, tiles.q, queries, head_dim, d_k);
      }
    }
    const std::int64_t token = at.in_keys + at.first_key, count = at.num_keys - at.first_key;
    store_rows<Shape>(d_k, args.scale, call.args.d_k, token, key_head, count, head_dim);
    store_rows<Shape>(d_v, 1, call.args.d_v, token, key_head, count, head_dim);
  }
}

// Floats of Call's workspace.
struct Workspace {
  std::int64_t deltas, position, time;

  explicit Workspace(const AttentionBackwardView& args) {
    const AttentionView& forward = args.forward;
    const std::int64_t heads = batch_size_of(forward) * forward.num_heads;
    const auto shares = [&](std::span<const float> gradient, const TableView& table) {
      return gradient.empty() ? 0 : heads * num_entries(table);
    };
    deltas = std::ssize(forward.lse);
    position = shares(args.d_position_table, forward.position_table);
    time = shares(args.d_time_table, forward.time_table);
  }
};

}  // namespace

template <>
void jagged_attention_backward_on<DeviceType::kCuda>(const AttentionBackward& on_device,
                                                     const Stream& stream) {
  const AttentionBackwardView args = view_of(on_device);
  if (backward_takes_tensor_cores(args, stream)) return backward_on_tensor_cores(on_device, stream);
  const Workspace sizes(args);
  Buffer<float> deltas(sizes.deltas, stream);
  auto position = Buffer<float>::zeros(sizes.position, stream);
  auto time = Buffer<float>::zeros(sizes.time, stream);
  const Call call{args, deltas.device_data(), position.device_data(), time.device_data()};
  with_tile_shape(args.forward.head_dim, [&](auto shape) {
    using Shape = decltype(shape);
    launch_tiles(backward_of_queries<Shape>, Tiles<Shape>::kSize + Shape::kRowsSize, stream, call,
                 QueryTasks(args));
    launch_tiles(backward_of_keys<Shape>, Tiles<Shape>::kSize, stream, call);
  });
  add_rows(position, args.d_position_table, stream);
  add_rows(time, args.d_time_table, stream);
}

template <>
std::int64_t jagged_attention_backward_workspace_on<DeviceType::kCuda>(
    const AttentionBackward& on_device, const Stream& stream) {
  const AttentionBackwardView args = view_of(on_device);
  if (backward_takes_tensor_cores(args, stream)) {
    return workspace_on_tensor_cores(on_device, stream);
  }
  const Workspace sizes(args);
  return (sizes.deltas + sizes.position + sizes.time) * static_cast<std::int64_t>(sizeof(float));
}

}  // namespace serrate
