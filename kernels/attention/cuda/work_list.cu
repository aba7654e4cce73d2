// Sorts the sequences of a batch by size classes, powers of two of the longer of their lengths. One
// block: each thread counts a run of sequences, so that the order within a class is the batch's.
#include "kernels/attention/cuda/work_list.h"

#include "kernels/attention/cuda/decoding.cuh"
#include "kernels/attention/cuda/launch_tiles.cuh"

namespace serrate {
namespace {

constexpr int kThreads = 256, kClasses = 24;

// 0: up to 16 queries and keys, 1: up to 32, and so on; the last class has no end.
__device__ int class_of(const AttentionView& args, std::int64_t sequence) {
  const std::int64_t size = std::max(queries_of(args, sequence).count, num_keys_of(args, sequence));
  int result = 0;
  while (result < kClasses - 1 && size > std::int64_t{16} << result) ++result;
  return result;
}

// values[t] becomes the sum of those before it, of all threads; returns the sum of all.
__device__ std::int64_t sum_before(std::int64_t* values) {
  for (unsigned step = 1; step < kThreads; step *= 2) {
    __syncthreads();
    const std::int64_t before = threadIdx.x >= step ? values[threadIdx.x - step] : 0;
    __syncthreads();
    values[threadIdx.x] += before;
  }
  __syncthreads();
  const std::int64_t before = threadIdx.x > 0 ? values[threadIdx.x - 1] : 0;
  const std::int64_t all = values[kThreads - 1];
  __syncthreads();
  values[threadIdx.x] = before;
  return all;
}

// What the tasks of a batch depend on besides its lengths.
struct Limits {
  std::int64_t many_pairs;  // many_pairs() of the device
  // Tiles of queries that a block of the backward has on chip, and with their gradients.
  std::int64_t resident_tiles, resident_gradients;
  std::int64_t wgmma_rows;  // queries that a block of Hopper's has; 0: there is none
  // For what decodes: heads of its tasks, and room for partials.
  std::int64_t decoding_heads, partial_rows;
};

struct Lists {
  std::int64_t *counts, *order, *forward, *resident, *key_tiles, *query_blocks, *decoding,
      *partial_rows, *longest_queries, *longest_keys, *resident_wgmma, *paired_wgmma;
};

// first_task[place] becomes the sum of tasks_at of the places before, for a thread's places and the
// end of all.
template <typename F>
__device__ void number_tasks(std::int64_t begin, std::int64_t end, std::int64_t batch_size,
                             std::int64_t* first_task, std::int64_t* sums, F&& tasks_at) {
  std::int64_t tasks = 0;
  for (std::int64_t place = begin; place < end; ++place) tasks += tasks_at(place);
  sums[threadIdx.x] = tasks;
  const std::int64_t all = sum_before(sums);
  tasks = sums[threadIdx.x];
  for (std::int64_t place = begin; place < end; ++place) {
    first_task[place] = tasks;
    tasks += tasks_at(place);
  }
  if (threadIdx.x == 0) first_task[batch_size] = all;
  __syncthreads();
}

__global__ void __launch_bounds__(kThreads, 1)
    sort_by_size(const __grid_constant__ AttentionView args, const Lists lists,
                 const Limits limits) {
  __shared__ int places[kClasses][kThreads];
  __shared__ std::int64_t sums[kThreads];
  const std::int64_t batch_size = batch_size_of(args);
  const std::int64_t run = ceil_div(batch_size, kThreads);
  const auto t = static_cast<std::int64_t>(threadIdx.x);
  const std::int64_t begin = std::min(t * run, batch_size), end = std::min(begin + run, batch_size);
  for (int c = 0; c < kClasses; ++c) places[c][t] = 0;
  for (std::int64_t s = begin; s < end; ++s) ++places[class_of(args, s)][t];
  const int short_class = short_size(args.head_dim) == kMmaTile ? 2 : 3;
  std::int64_t up_to[kClasses + 1];  // sequences of a class and longer
  up_to[kClasses] = 0;
  for (int c = kClasses - 1; c >= 0; --c) {
    sums[t] = places[c][t];
    const std::int64_t count = sum_before(sums), before = up_to[c + 1];
    places[c][t] = static_cast<int>(before + sums[t]);
    up_to[c] = before + count;
  }
  const std::int64_t num_long = up_to[short_class + 1], longer = up_to[2];
  static_assert(most_of_whole(128) == 16 << 5 && most_of_whole(256) == 16 << 4);
  const std::int64_t longest = up_to[args.head_dim <= 128 ? 6 : 5];
  if (t == 0) {
    lists.counts[0] = num_long, lists.counts[1] = longer - num_long;
    lists.counts[2] = up_to[1] - longer, lists.counts[3] = up_to[0] - up_to[1];
    lists.counts[4] = longest;
  }
  for (std::int64_t s = begin; s < end; ++s) lists.order[places[class_of(args, s)][t]++] = s;
  __syncthreads();
  const std::int64_t heads = args.num_heads, key_heads = args.num_key_heads;
  const auto are_many = [&](std::int64_t sequences) {
    return sequences * key_heads >= limits.many_pairs;
  };
  // Those of the sequences at places from `first` up to `last` that do not decode.
  const auto undecoded = [&](std::int64_t first, std::int64_t last) {
    std::int64_t count = 0;
    for (std::int64_t place = std::max(begin, first); place < std::min(end, last); ++place) {
      count += decoding_split(args, lists.order[place]).rows == 0 ? 1 : 0;
    }
    sums[t] = count;
    return sum_before(sums);
  };
  const bool whole_long = are_many(undecoded(0, num_long));
  const bool whole_short = are_many(undecoded(num_long, longer));
  const bool whole_backward = are_many(up_to[3]);
  const auto number = [&](std::int64_t* first_task, auto&& tasks_of) {
    number_tasks(begin, end, batch_size, first_task, sums, [&](std::int64_t place) {
      if (place >= longer) return std::int64_t{0};
      const std::int64_t s = lists.order[place];
      return tasks_of(place, queries_of(args, s).count, num_keys_of(args, s));
    });
  };
  number(lists.forward, [&](std::int64_t place, std::int64_t queries, std::int64_t keys) {
    if (decoding_split(args, lists.order[place]).rows > 0) return std::int64_t{0};
    const bool is_long = place < num_long;
    if ((is_long ? whole_long : whole_short) &&
        std::max(queries, keys) <= most_of_whole(args.head_dim)) {
      return queries > 0 ? key_heads : 0;
    }
    const int rows = is_long ? 16 * warps_for_long(args.head_dim) : kMmaTile;
    return ceil_div(queries, rows) * heads;
  });
  const auto is_whole = [&](std::int64_t queries, std::int64_t keys) {
    return whole_backward && queries > 0 && keys > kMmaTile &&
           std::max(queries, keys) <= kMostOfWhole;
  };
  const auto fits = [&](std::int64_t queries, std::int64_t keys, std::int64_t tiles) {
    return is_whole(queries, keys) && ceil_div(queries, kMmaTile) * heads <= tiles * key_heads;
  };
  // How many blocks of wgmma/backward_resident.cu have a sequence, if any.
  const auto blocks_of_wgmma = [&](std::int64_t queries, std::int64_t keys) {
    const std::int64_t rows = ceil_div(queries, kMmaTile) * kMmaTile * heads / key_heads;
    if (keys <= kMmaTile || std::max(queries, keys) > most_of_whole(args.head_dim) ||
        rows <= (args.head_dim <= 128 ? limits.wgmma_rows / 2 : 0) ||
        rows > resident_blocks_of_wgmma(args.head_dim) * limits.wgmma_rows) {
      return std::int64_t{0};
    }
    return ceil_div(rows, limits.wgmma_rows);
  };
  const auto takes_wgmma = [&](std::int64_t queries, std::int64_t keys) {
    return blocks_of_wgmma(queries, keys) > 0;
  };
  number(lists.resident_wgmma, [&](std::int64_t, std::int64_t queries, std::int64_t keys) {
    return blocks_of_wgmma(queries, keys) == 1 ? key_heads : 0;
  });
  number(lists.paired_wgmma, [&](std::int64_t, std::int64_t queries, std::int64_t keys) {
    return blocks_of_wgmma(queries, keys) == 2 ? key_heads : 0;
  });
  number(lists.resident, [&](std::int64_t, std::int64_t queries, std::int64_t keys) {
    const bool is_resident = fits(queries, keys, limits.resident_tiles);
    return is_resident && !takes_wgmma(queries, keys) ? key_heads : 0;
  });
  number(lists.key_tiles, [&](std::int64_t, std::int64_t queries, std::int64_t keys) {
    const bool is_resident = fits(queries, keys, limits.resident_tiles);
    return is_resident || takes_wgmma(queries, keys) ? 0 : ceil_div(keys, kMmaTile) * key_heads;
  });
  // A block that has all keys of a sequence has its d_q, too.
  number(lists.query_blocks, [&](std::int64_t, std::int64_t queries, std::int64_t keys) {
    const bool has_one_tile = 0 < keys && keys <= kMmaTile;
    if (has_one_tile || fits(queries, keys, limits.resident_gradients) ||
        takes_wgmma(queries, keys)) {
      return std::int64_t{0};
    }
    return is_whole(queries, keys) ? key_heads
                                   : ceil_div(queries, rows_for_d_q(args.head_dim)) * heads;
  });
  const auto number_longest = [&](std::int64_t* first_task, auto&& tasks_of) {
    number(first_task, [&](std::int64_t place, std::int64_t queries, std::int64_t keys) {
      return place < longest ? tasks_of(queries, keys) : 0;
    });
  };
  number_longest(lists.longest_queries, [&](std::int64_t queries, std::int64_t) {
    return ceil_div(queries, kLongestRows) * heads;
  });
  number_longest(lists.longest_keys, [&](std::int64_t, std::int64_t keys) {
    return ceil_div(keys, kLongestRows) * key_heads;
  });
  if (limits.partial_rows == 0) return;
  // A sequence is cut if one task of it would be more than a task's share of all chunks.
  const std::int64_t of_decoding = limits.decoding_heads;
  const auto blocks_of = [&](const DecodingSplit& split) {
    return row_blocks(args, split, of_decoding) * of_decoding;
  };
  number(lists.decoding, [&](std::int64_t place, std::int64_t, std::int64_t) {
    const DecodingSplit split = decoding_split(args, lists.order[place]);
    return split.num_chunks * blocks_of(split);
  });
  const std::int64_t all_chunks = lists.decoding[batch_size];
  number(lists.partial_rows, [&](std::int64_t place, std::int64_t queries, std::int64_t) {
    const std::int64_t chunks = decoding_split(args, lists.order[place]).num_chunks;
    return chunks > 1 && chunks * limits.many_pairs > all_chunks ? chunks * queries * heads : 0;
  });
  number(lists.decoding, [&](std::int64_t place, std::int64_t, std::int64_t) {
    const DecodingSplit split = decoding_split(args, lists.order[place]);
    const std::int64_t rows_up_to = lists.partial_rows[place + 1];
    const bool is_cut = rows_up_to > lists.partial_rows[place] && rows_up_to <= limits.partial_rows;
    return blocks_of(split) * (is_cut ? split.num_chunks : 1);
  });
}

}  // namespace

CudaAttentionPlan list_work(const AttentionView& args, bool backward_takes_wgmma,
                            const Stream& stream) {
  const std::int64_t batch_size = batch_size_of(args);
  const std::int64_t partial_rows = most_partial_rows(args, stream);
  CudaAttentionPlan plan{Buffer<std::int64_t>(CudaAttentionPlan::size(batch_size), stream),
                         partial_rows * (args.head_dim + 2), backward_takes_wgmma};
  std::int64_t *counts = plan.values.device_data(), *order = counts + CudaAttentionPlan::kCounts;
  std::int64_t *tasks = order + batch_size, step = batch_size + 1;
  const auto room = [&](Resident what) -> std::int64_t {
    if (args.head_dim > 128 || args.in_tf32) return 0;
    return resident_tiles(what, args.head_dim, shared_bytes_of(stream));
  };
  launch(sort_by_size, 1, kThreads, 0, stream, args,
         Lists{counts, order, tasks, tasks + step, tasks + 2 * step, tasks + 3 * step,
               tasks + 4 * step, tasks + 5 * step, tasks + 6 * step, tasks + 7 * step,
               tasks + 8 * step, tasks + 9 * step},
         Limits{many_pairs(stream), room(Resident::kQueries), room(Resident::kQueriesAndGradients),
                backward_takes_wgmma ? resident_rows_of_wgmma(args.head_dim) : 0,
                decoding_heads(args), partial_rows});
  return plan;
}

}  // namespace serrate
