// Gradients of biases and tables on tensor cores, in a kernel of its own, as those of the backward
// have no registers left: it computes scores and gradients of weights once more, of 64 queries and
// 64 keys at a time, and adds the gradients of the scores up in shared memory. What shares a place
// of the bias is one block's, in a fixed order: all heads, the sequences of a run, all queries or
// all keys; a warp has entries of the tables to itself. Runs and blocks are then added up in their
// order. Eight warps have 16 queries and 32 keys each. (docs/performance_gpu_attention.md)
#include <algorithm>

#include "kernels/attention/cuda/bias_sums.cuh"
#include "kernels/attention/cuda/launch_tiles.cuh"
#include "kernels/attention/cuda/mma/bias_places.cuh"
#include "kernels/attention/cuda/mma/gradients.cuh"
#include "kernels/attention/cuda/mma/key_slots.cuh"
#include "kernels/attention/cuda/ordered_sums.h"
#include "kernels/attention/cuda/tensor_cores.h"
#include "serrate/buffer.h"

namespace serrate {
namespace {

constexpr int kNumWarps = 8, kThreads = kNumWarps * kLanes;
// Blocks of 8 keys whose scores a warp has at a time: what registers allow where two blocks share a
// multiprocessor. tf32 needs some to round operands.
template <class Half>
constexpr int kScoreBlocks = kIsTf32<Half> ? 2 : 4;
// From a row of d_scores in float32 to the next: a fragment's are in different banks.
constexpr int kStride = kMmaTile + 8;
// Entries of both tables together; more have sums in global memory.
constexpr std::int64_t kEntriesInShared = 384;

struct BiasCall {
  AttentionBackwardView args;
  BiasTasks tasks;
  // d_bias of a run begins so far behind that of the run before.
  std::int64_t run_stride;
  // [runs, shares, num_heads, entries]: of tables; null: no gradient. [runs, shares, num_heads,
  // kNumWarps, entries of both]: sums for which shared memory has no room.
  float *d_position, *d_time, *sums;
  int position_entries, time_entries;

  __host__ __device__ int entries() const { return position_entries + time_entries; }
};

template <int kDim, class Half>
struct BiasTiles {
  static constexpr int kTile = kMmaTile * kDim;
  static constexpr int kKeys = slot_rows(kDim * sizeof(Half)), kKeysOfWarp = kKeys / 2;
  static constexpr std::int64_t kBytes = 2 * sizeof(Half) * (kTile + kKeys * kDim) + 8 * kMmaTile +
                                         4 * kMmaTile * kStride + 4 * kNumWarps * kEntriesInShared;
  SwizzledRows<kDim, Half> q{dynamic_shared<Half>()}, d_out{q.data + kTile}, k{d_out.data + kTile},
      v{k.data + kKeys * kDim};
  QuerySums* query_sums = reinterpret_cast<QuerySums*>(v.data + kKeys * kDim);
  float* d_scores = reinterpret_cast<float*>(query_sums + kMmaTile);
  float* entry_sums = d_scores + kMmaTile * kStride;
};

// What a warp reads now and then, in shared memory.
struct WarpState {
  TilePair at;
  std::int64_t held_sequence, held_head, held_query;  // whose queries the block has
  KeyRanges ranges[kWarpRows];
};

// Calls f(first column, gradients of the scores without scale_of_sums()) for a warp's part of a
// place, some keys at a time. Returns whether the block sees any of it.
template <int kDim, class Half, typename F>
__device__ bool for_each_gradient_at(const AttentionBackwardView& call, WarpState& state,
                                     const BiasTiles<kDim, Half>& tiles, F&& f) {
  using Tiles = BiasTiles<kDim, Half>;
  constexpr int kBlocks = kScoreBlocks<Half>;
  const AttentionView& args = call.forward;
  const WarpPart<kDim, 2> own;
  const TilePair& at = state.at;
  const int lane = lane_index(), first_key = static_cast<int>(at.first_key);
  const int count =
      static_cast<int>(std::clamp<std::int64_t>(at.queries.count - at.first_query, 0, kWarpRows));
  set_key_ranges(args, at, state.ranges);
  const TileClass seen = class_of_tile(args, at, state.ranges, {at.first_query, count, first_key});
  // The tiles before have been read.
  if (__syncthreads_or(!seen.is_empty) == 0) return false;
  const bool has_queries = state.held_sequence == at.sequence && state.held_head == at.head &&
                           state.held_query == at.first_query;
  __syncwarp();
  if (!has_queries) {
    const bool of_q = own.part == 0;
    copy_rows<kDim>(of_q ? args.q : call.d_out,
                    (of_q ? at.queries.in_q : at.queries.in_out) + at.first_query, at.head, count,
                    of_q ? tiles.q : tiles.d_out, own.row);
    if (lane == 0) {
      state.held_sequence = at.sequence, state.held_head = at.head;
      state.held_query = at.first_query;
    }
  }
  QuerySums* const sums = tiles.query_sums + own.row;
  LaneTile tile{static_cast<int>(at.first_query) + lane / 4, state.ranges, 0, 0, seen.is_full};
#pragma unroll 1
  for (int first = 0; first < kMmaTile; first += Tiles::kKeys) {
    if (first > 0) __syncthreads();  // the keys before have been read
    const bool of_k = own.part == 0;
    const std::int64_t key = at.first_key + first + own.row;
    if (own.row < Tiles::kKeys) {
      copy_rows<kDim>(of_k ? args.k : args.v, at.in_keys + key, at.head / heads_per_key_head(args),
                      at.num_keys - key, of_k ? tiles.k : tiles.v, own.row);
    }
    copy_async_commit();
    copy_async_wait<0>();
    __syncthreads();
    if (first == 0 && !has_queries) {
      if (own.part == 0) sum_queries<kDim>(args, at, count, tiles.d_out, own.row, sums);
      own.sync();
    }
#pragma unroll 1
    for (int of_part = 0; of_part < Tiles::kKeysOfWarp; of_part += 8 * kBlocks) {
      const int row = own.part * Tiles::kKeysOfWarp + of_part;
      tile.first_key = first_key + first + row;
      tile.num_columns =
          static_cast<int>(std::min<std::int64_t>(at.num_keys - tile.first_key, kMmaTile));
      Fragment<kBlocks> weights = {}, d_scores = {};
      if (!seen.is_empty && tile.num_columns > 0) {
        multiply_rows<kDim, kBlocks>(tiles.q, own.row, tiles.k, row, tile.num_columns, weights);
        multiply_rows<kDim, kBlocks>(tiles.d_out, own.row, tiles.v, row, tile.num_columns,
                                     d_scores);
        score_gradients<Extras::kAny, kBlocks>(args, at, tile, sums, weights, d_scores);
      }
      f(first + row, d_scores);
    }
  }
  return true;
}

// A warp's 16 rows of d_scores to rows kStride apart, or added to what is there.
enum class To { kWrite, kAdd };
template <int kBlocks>
__device__ void put_scores(To what, const Fragment<kBlocks>& d_scores, float* to) {
  const int g = lane_index() / 4, q = lane_index() % 4;
#pragma unroll
  for (int n = 0; n < kBlocks; ++n) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      auto* const pair = reinterpret_cast<float2*>(to + (g + 8 * r) * kStride + 8 * n + 2 * q);
      float2 sum = {d_scores[n][2 * r], d_scores[n][2 * r + 1]};
      if (what == To::kAdd) {
        const float2 before = *pair;
        sum.x += before.x, sum.y += before.y;
      }
      *pair = sum;
    }
  }
}

// A warp's sums of entries += gradients of scores, in shared memory, of 16 queries and, a lane
// each, 32 keys from first_key on. By place pairs are added up along diagonals first.
__device__ void add_to_tables(const BiasCall& call, const TilePair& at, std::int64_t first_key,
                              const float* d_scores, float* sums) {
  static_assert(2 * kLanes == kMmaTile);
  const AttentionView& args = call.args.forward;
  const int lane = lane_index();
  if (call.d_position) {
    float of_diagonal[2] = {};
#pragma unroll
    for (int row = 0; row < kWarpRows; ++row) {
      const int column = row + lane;
      const float x = d_scores[row * kStride + column % kLanes];
      if (column < kLanes) {
        of_diagonal[0] += x;
      } else {
        of_diagonal[1] += x;
      }
    }
#pragma unroll 1
    for (int i = 0; i < 2; ++i) {
      const float x = i == 0 ? of_diagonal[0] : of_diagonal[1];
      const std::int64_t distance = at.first_query - first_key - lane + i * kLanes;
      add_by_entry(sums, x == 0 ? -1 : static_cast<int>(entry_of(args.position_table, distance)),
                   x);
    }
  }
  if (!call.d_time) return;
#pragma unroll 1
  for (int row = 0; row < kWarpRows; ++row) {
    const float x = d_scores[row * kStride + lane];
    int entry = -1;
    if (x != 0) {
      entry = static_cast<int>(time_entry(args, at, at.first_query + row, first_key + lane));
    }
    add_by_entry(sums + call.position_entries, entry, x);
  }
}

// What the warps of a block summed becomes the block's share of each table.
__device__ void write_entries(const BiasCall& call, std::int64_t share, const float* sums) {
  const int entries = call.entries();
  const float factor = scale_of_sums(call.args.forward);
  __syncthreads();
  for (int entry = thread_index(); entry < entries; entry += kThreads) {
    float sum = 0;
    for (int warp = 0; warp < kNumWarps; ++warp) sum += sums[warp * entries + entry];
    const bool by_place = entry < call.position_entries;
    float* const to = by_place ? call.d_position + share * call.position_entries
                               : call.d_time + share * call.time_entries - call.position_entries;
    to[entry] = factor * sum;
  }
  __syncthreads();
}

// One task after the other for each block.
template <int kDim, class Half, Summed kSummed>
__global__ void __launch_bounds__(kThreads, kDim * sizeof(Half) <= 256 ? 2 : 1)
    sum_biases(const __grid_constant__ BiasCall call) {
  const AttentionView& args = call.args.forward;
  const BiasTasks& tasks = call.tasks;
  __shared__ WarpState states[kNumWarps];
  __shared__ BiasTask task;
  static_assert(sizeof(states) + sizeof(task) <= kStaticBytes);
  const BiasTiles<kDim, Half> tiles;
  const WarpPart<kDim, 2> own;
  const int lane = lane_index();
  WarpState& state = states[own.warp];
  TilePair& at = state.at;
  if (lane == 0) state.held_sequence = -1;
  float* const rows_of_warp = tiles.d_scores + own.row * kStride;
  const auto set_task = [&](auto&& find) {
    __syncthreads();  // the one before has been read
    if (own.warp == 0) {
      const BiasTask found = find();
      __syncwarp();
      if (lane == 0) task = found;
    }
    __syncthreads();
  };
  const auto sums_of_entries = [&](int warp) {
    float* const of_block =
        call.sums ? call.sums + task.index * kNumWarps * call.entries() : tiles.entry_sums;
    return of_block + warp * call.entries();
  };
  for (std::int64_t index = blockIdx.x; index < tasks.size(args); index = task.index + gridDim.x) {
    set_task([&] { return task_at(args, tasks, index); });
    if constexpr (kSummed == Summed::kTables) {
      for (int i = lane; i < call.entries(); i += kLanes) sums_of_entries(own.warp)[i] = 0;
      __syncwarp();
    }
    while (task.end < task.end_of_run) {
      set_task([&] { return next_of<kSummed>(args, tasks, task); });
      for (std::int64_t place = task.first_place; place < task.query_tiles * task.key_tiles;
           place += tasks.shares) {
        bool has_sum = false;
        for_each_at(args, task, place, [&](std::int64_t sequence) {
          const TilePair first = first_at(args, task, place, sequence);
          __syncwarp();
          if (lane == 0) at = first;
          __syncwarp();
          for (std::int64_t item = 0; item < PlaceItems(args, tasks, at).all; ++item) {
            __syncwarp();
            if (lane == 0) go_to_item(args, tasks, task, place, item, at);
            __syncwarp();
            const auto put = [&](int column, const Fragment<kScoreBlocks<Half>>& d_scores) {
              put_scores(has_sum ? To::kAdd : To::kWrite, d_scores, rows_of_warp + column);
            };
            if (!for_each_gradient_at<kDim>(call.args, state, tiles, put)) continue;
            if constexpr (kSummed == Summed::kTables) {
              own.sync();
              const int column = own.part * kLanes;
              add_to_tables(call, at, at.first_key + column, rows_of_warp + column,
                            sums_of_entries(own.warp));
            } else {
              has_sum = true;
            }
          }
        });
        if (kSummed == Summed::kTables || !has_sum) continue;
        __syncthreads();
        add_to_bias<kMmaTile, kStride, kThreads>(
            args.bias, call.args.d_bias + task.run * call.run_stride, scale_of_sums(args),
            first_at(args, task, place, task.begin), tiles.d_scores);
      }
    }
    if constexpr (kSummed == Summed::kTables) write_entries(call, task.index, sums_of_entries(0));
  }
}

template <Summed kSummed>
void run(const BiasCall& call, const Stream& stream) {
  const AttentionView& args = call.args.forward;
  with_rows(args, [&](auto dim, auto zero) {
    using Half = decltype(zero);
    constexpr std::int64_t kBytes = BiasTiles<dim(), Half>::kBytes;
    launch_warps(sum_biases<dim(), Half, kSummed>,
                 {kNumWarps, kBytes, kBytes, call.tasks.size(args)}, stream, call);
  });
}

// ---- what is one block's: by sizes that the host knows, whichever the device -------------------

// Where sequences share a bias, runs have sums of their own, of so many floats in all, or they
// are one. Blocks are enough to keep a device busy; those that find no place end.
BiasTasks tasks_of_bias(const AttentionBackwardView& call, std::int64_t size) {
  constexpr std::int64_t kMostFloats = 1 << 20, kMostRuns = 64, kBlocks = 512;
  const BiasView& bias = call.forward.bias;
  const std::int64_t batch_size = batch_size_of(call.forward);
  BiasTasks tasks{batch_size, 1, bias.head_stride == 0, bias.query_stride == 0,
                  bias.key_stride == 0};
  if (bias.sequence_stride == 0) {
    tasks.runs = std::clamp<std::int64_t>(kMostFloats / size, 1, std::min(kMostRuns, batch_size));
  }
  tasks.shares = std::clamp<std::int64_t>(kBlocks / tasks.size(call.forward), 1, 256);
  return tasks;
}
std::int64_t floats_of_bias(const BiasTasks& tasks, const BiasView& bias, std::int64_t size) {
  return bias.sequence_stride == 0 && tasks.runs > 1 ? tasks.runs * size : 0;
}

struct TableFloats {
  std::int64_t position, time, sums;
};

// Each block has sums of the entries, and where shared memory has no room each of its warps.
BiasTasks tasks_of_tables(const AttentionView& args, std::int64_t entries) {
  constexpr std::int64_t kMostFloats = 1 << 22, kMostBlocks = 256;
  const std::int64_t sums = entries <= kEntriesInShared ? 1 : 1 + kNumWarps;
  const std::int64_t blocks =
      std::clamp<std::int64_t>(kMostFloats / (args.num_heads * entries * sums), 1, kMostBlocks);
  const std::int64_t runs = std::min(blocks, batch_size_of(args));
  return {runs, blocks / runs, false, false, false};
}

BiasCall call_of_tables(const AttentionBackwardView& args) {
  const auto entries = [](std::span<const float> gradient, const TableView& table) {
    return gradient.empty() ? 0 : static_cast<int>(num_entries(table));
  };
  BiasCall call{args,
                {},
                0,
                nullptr,
                nullptr,
                nullptr,
                entries(args.d_position_table, args.forward.position_table),
                entries(args.d_time_table, args.forward.time_table)};
  if (call.entries() > 0) call.tasks = tasks_of_tables(args.forward, call.entries());
  return call;
}
TableFloats floats_of(const BiasCall& call) {
  const std::int64_t shares = call.tasks.runs * call.tasks.shares * call.args.forward.num_heads;
  const bool has_room = call.entries() <= kEntriesInShared;
  return {shares * call.position_entries, shares * call.time_entries,
          has_room ? 0 : shares * kNumWarps * call.entries()};
}

void sum_bias(AttentionBackwardView args, std::int64_t size, const Stream& stream) {
  const BiasTasks tasks = tasks_of_bias(args, size);
  const std::int64_t floats = floats_of_bias(tasks, args.forward.bias, size);
  auto of_runs = Buffer<float>::zeros(floats, stream);
  float* const d_bias = args.d_bias;
  if (floats > 0) args.d_bias = of_runs.device_data();
  run<Summed::kBias>({args, tasks, floats > 0 ? size : 0, nullptr, nullptr, nullptr, 0, 0}, stream);
  add_rows(of_runs, {d_bias, static_cast<std::size_t>(size)}, stream);
}

void sum_tables(BiasCall call, const Stream& stream) {
  const TableFloats sizes = floats_of(call);
  Buffer<float> position(sizes.position, stream), time(sizes.time, stream);
  Buffer<float> sums(sizes.sums, stream);
  call.d_position = position.device_data(), call.d_time = time.device_data();
  call.sums = sums.device_data();
  run<Summed::kTables>(call, stream);
  add_rows(position, call.args.d_position_table, stream);
  add_rows(time, call.args.d_time_table, stream);
}

}  // namespace

std::int64_t floats_of_biases(const AttentionBackwardView& args, std::int64_t bias_size) {
  if (batch_size_of(args.forward) == 0) return 0;
  const TableFloats tables = floats_of(call_of_tables(args));
  const std::int64_t of_bias =
      args.d_bias ? floats_of_bias(tasks_of_bias(args, bias_size), args.forward.bias, bias_size)
                  : 0;
  return std::max(of_bias, tables.position + tables.time + tables.sums);
}

void sum_gradients_of_biases(const AttentionBackwardView& args, std::int64_t bias_size,
                             const Stream& stream) {
  if (batch_size_of(args.forward) == 0) return;
  if (args.d_bias) sum_bias(args, bias_size, stream);
  const BiasCall tables = call_of_tables(args);
  if (tables.entries() > 0) sum_tables(tables, stream);
}

}  // namespace serrate
