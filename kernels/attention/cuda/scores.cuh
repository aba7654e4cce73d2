#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <numbers>
#include <variant>

#include "kernels/attention/cuda/tile.cuh"
#include "kernels/attention/mask_ranges.h"

// From products of queries and keys to weights and their gradients, as the forward and the backward
// have them: masks, biases, tables, the activation, dropout.
namespace serrate {

/// One sequence in one head, and a pair of tiles of it.
struct TilePair {
  std::int64_t sequence, head;
  SequenceQueries queries;
  std::int64_t in_keys, num_keys;  // the sequence's first in k and v, and how many
  std::int64_t first_query, first_key;
};

__device__ inline TilePair pair_of(const AttentionView& args, std::int64_t sequence,
                                   std::int64_t head) {
  return {sequence,
          head,
          queries_of(args, sequence),
          args.key_offsets[sequence],
          num_keys_of(args, sequence),
          0,
          0};
}

__device__ inline bool is_softmax(const AttentionView& args) {
  return args.activation == AttentionActivation::kSoftmax;
}

// ---- masks ----------------------------------------------------------------------------------

/// How many of the rising values are <= x.
__device__ inline std::int64_t count_up_to(const std::int64_t* values, std::int64_t size,
                                           std::int64_t x) {
  std::int64_t low = 0, high = size;
  while (low < high) {
    const std::int64_t middle = (low + high) / 2;
    if (values[middle] <= x) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

/// The keys that a query sees, by masks that say so; by others all.
__device__ inline TwoRanges keys_of(const AttentionView& args, const TilePair& at,
                                    std::int64_t query) {
  const AttentionMask& mask = args.mask;
  if (const auto* window = std::get_if<WindowMask>(&mask)) {
    const std::int64_t shift = window_shift(*window, at.queries.count, at.num_keys);
    return {{window_keys(*window, query + shift), {}}};
  }
  if (const auto* prefix = std::get_if<PrefixMask>(&mask)) {
    return {{prefix_keys(*prefix, at.sequence, query), {}}};
  }
  if (const auto* documents = std::get_if<DocumentMask>(&mask)) {
    const std::int64_t* offsets = documents->document_offsets.device_data();
    const std::int64_t end =
        count_up_to(offsets, static_cast<std::int64_t>(documents->document_offsets.size()),
                    at.queries.in_out + query);
    const MaskRange document{offsets[end - 1], offsets[end]};
    return {{document_keys(*documents, document, at.queries.in_out, query), {}}};
  }
  if (const auto* hstu = std::get_if<HstuMask>(&mask)) {
    return hstu_keys(*hstu, at.queries.count - targets_of(*hstu, at.sequence), query);
  }
  if (const auto* rows = std::get_if<RowMask>(&mask)) {
    return ranges_at(rows->ranges, at.queries.in_out + query);
  }
  return {{{0, at.num_keys}, {}}};
}

/// Whether ranges of keys_of() rise from one query to another: from one to the next, neither begins
/// or ends before it did.
__device__ inline bool ranges_rise(const AttentionView& args, const TilePair& at,
                                   std::int64_t first_query, std::int64_t last_query) {
  if (const auto* hstu = std::get_if<HstuMask>(&args.mask)) {
    return hstu_ranges_rise(*hstu, at.queries.count - targets_of(*hstu, at.sequence), first_query,
                            last_query);
  }
  return !std::holds_alternative<RowMask>(args.mask);
}

__device__ inline bool contains(const MaskRange& range, std::int64_t x) {
  return range.begin <= x && x < range.end;
}

/// Whether masks that speak of pairs or of keys let a query see a key.
__device__ inline bool lets_see(const AttentionView& args, const TilePair& at, std::int64_t query,
                                std::int64_t key) {
  if (const auto* columns = std::get_if<ColumnMask>(&args.mask)) {
    const TwoRanges hidden = ranges_at(columns->ranges, at.in_keys + key);
    return !contains(hidden[0], query) && !contains(hidden[1], query);
  }
  if (const auto* blocks = std::get_if<BlockMask>(&args.mask)) {
    const DeviceMatrix<const std::uint8_t>& bits = bit_mask(*blocks, at.sequence).bits;
    return (bits.device_data()[key * bits.stride + query / 8] >> query % 8 & 1) != 0;
  }
  return true;
}

/// A bit for each of a thread's pairs, in the order of rows and columns.
template <class Shape>
__device__ unsigned visible_pairs(const AttentionView& args, const TilePair& at) {
  unsigned visible = 0;
  for_each_row<Shape>([&](int row, int r) {
    const std::int64_t query = at.first_query + row;
    if (query >= at.queries.count) return;
    const TwoRanges keys = keys_of(args, at, query);
    for (int m = 0; m < Shape::kColumns; ++m) {
      const std::int64_t key = at.first_key + first_column<Shape>() + m;
      const bool is_visible = key < at.num_keys &&
                              (contains(keys[0], key) || contains(keys[1], key)) &&
                              lets_see(args, at, query, key);
      visible |= static_cast<unsigned>(is_visible) << (r * Shape::kColumns + m);
    }
  });
  return visible;
}

/// Likewise, those that dropout keeps.
template <class Shape>
__device__ unsigned kept_pairs(const AttentionView& args, const TilePair& at) {
  if (!args.has_dropout) return ~0u;
  unsigned kept = 0;
  const std::int64_t first_key = at.first_key + first_column<Shape>();  // of one group of four
  for_each_row<Shape>([&](int row, int r) {
    const std::int64_t query = at.first_query + row;
    if (query >= at.queries.count) return;
    const auto id = static_cast<std::uint64_t>(args.token_ids[at.queries.in_out + query]);
    const auto words =
        philox4x32({static_cast<std::uint32_t>(id), static_cast<std::uint32_t>(id >> 32),
                    static_cast<std::uint32_t>(first_key / 4),
                    args.draw.site + (static_cast<std::uint32_t>(at.head) << 16)},
                   args.draw.key);
    static_assert(Shape::kColumns == 2 || Shape::kColumns == 4);
#pragma unroll
    for (int m = 0; m < Shape::kColumns; ++m) {
      const auto word = Shape::kColumns == 4 || first_key % 4 == 0 ? words[m] : words[(m + 2) % 4];
      kept |= static_cast<unsigned>(word >= args.draw.threshold) << (r * Shape::kColumns + m);
    }
  });
  return kept;
}

template <class Shape>
__device__ bool has_pair(unsigned pairs, int r, int m) {
  return (pairs >> (r * Shape::kColumns + m) & 1) != 0;
}

// ---- biases ---------------------------------------------------------------------------------

__device__ inline std::int64_t bias_place(const BiasView& bias, const TilePair& at,
                                          std::int64_t query, std::int64_t key) {
  return at.sequence * bias.sequence_stride + at.head * bias.head_stride +
         query * bias.query_stride + key * bias.key_stride;
}

__device__ inline std::int64_t entry_of(const TableView& table, std::int64_t distance) {
  return count_up_to(table.boundaries.data(), num_entries(table) - 1, distance);
}
__device__ inline std::int64_t position_entry(const AttentionView& args, std::int64_t query,
                                              std::int64_t key) {
  return entry_of(args.position_table, query - key);
}
__device__ inline std::int64_t time_entry(const AttentionView& args, const TilePair& at,
                                          std::int64_t query, std::int64_t key) {
  return entry_of(args.time_table,
                  args.query_times[at.queries.in_out + query] - args.key_times[at.in_keys + key]);
}

__device__ inline float table_value(const TableView& table, std::int64_t head, std::int64_t entry) {
  const bool is_shared = static_cast<std::int64_t>(table.values.size()) == num_entries(table);
  return table.values[(is_shared ? 0 : head * num_entries(table)) + entry];
}

__device__ inline float bias_of(const AttentionView& args, const TilePair& at, std::int64_t query,
                                std::int64_t key) {
  float bias = 0;
  if (args.bias.data) bias += args.bias.data[bias_place(args.bias, at, query, key)];
  if (!args.position_table.values.empty()) {
    bias += table_value(args.position_table, at.head, position_entry(args, query, key));
  }
  if (!args.time_table.values.empty()) {
    bias += table_value(args.time_table, at.head, time_entry(args, at, query, key));
  }
  return bias;
}

// ---- scores and weights ---------------------------------------------------------------------

inline constexpr float kLog2e = std::numbers::log2e_v<float>;

/// Products of queries and keys become scores, in units of log 2 for softmax; what is hidden is
/// -infinity.
template <class Shape>
__device__ void finish_scores(const AttentionView& args, const TilePair& at, unsigned visible,
                              Scores<Shape>& scores) {
  const float factor = is_softmax(args) ? kLog2e : 1;
  const bool has_bias =
      args.bias.data || !args.position_table.values.empty() || !args.time_table.values.empty();
  for_each_row<Shape>([&](int row, int r) {
#pragma unroll
    for (int m = 0; m < Shape::kColumns; ++m) {
      if (!has_pair<Shape>(visible, r, m)) {
        scores[r][m] = -INFINITY;
        continue;
      }
      scores[r][m] *= args.scale * factor;
      if (!has_bias) continue;
      scores[r][m] += factor * bias_of(args, at, at.first_query + row,
                                       at.first_key + first_column<Shape>() + m);
    }
  });
}

/// x / (1 + e^-x) and its derivative.
struct Silu {
  float value, derivative;
};
__device__ inline Silu silu(float x) {
  const float sigmoid = 1 / (1 + exp2f(fminf(-x * kLog2e, 126)));
  const float value = x * sigmoid;
  return {value, fmaf(value, 1 - sigmoid, sigmoid)};
}

/// What turns a score into a weight in float32 kernels.
struct ExactActivation {
  float silu_divisor;

  __device__ float softmax(float score, float lse) const { return exp2f(score - lse); }
  __device__ Silu silu(float x) const {
    const Silu values = serrate::silu(x);
    return {values.value / silu_divisor, values.derivative / silu_divisor};
  }
};

/// What the backward needs of a query: log-sum-exp in units of log 2, and the sum of d_out * out.
struct QuerySums {
  float lse, delta;
};

__device__ inline QuerySums query_sums(const AttentionView& args, const TilePair& at,
                                       std::int64_t query, const float* deltas) {
  if (!is_softmax(args) || query >= at.queries.count) return {INFINITY, 0};
  const std::int64_t place = at.head * static_cast<std::int64_t>(args.lse.size()) / args.num_heads +
                             at.queries.in_out + query;
  // A query that sees no key: exp(score - infinity) is the 0 it needs.
  const float lse = args.lse[place];
  return {lse == -INFINITY ? INFINITY : lse * kLog2e, deltas ? deltas[place] : 0};
}

/// A visible pair: its score becomes the weight as dropout leaves it, and d_weight, the gradient
/// of that, the gradient of the score. `factor`: what dropout multiplies the weight by.
template <class Activation>
__device__ __forceinline__ void weight_and_gradient(const AttentionView& args,
                                                    const QuerySums& sums, float factor,
                                                    const Activation& activation, float& score,
                                                    float& d_weight) {
  float weight, derivative, offset = 0;
  if (is_softmax(args)) {
    weight = derivative = activation.softmax(score, sums.lse);
    offset = sums.delta;
  } else {
    const Silu values = activation.silu(score);
    weight = values.value;
    derivative = values.derivative;
  }
  // Rounded: nvcc must not fuse the product into the difference in one kernel and not in another.
  const float kept = factor == 0 ? 0 : __fmul_rn(factor, d_weight);
  score = factor == 0 ? 0 : factor * weight;
  // Where the derivative is 0, d_weight need not have a value.
  d_weight = derivative == 0 ? 0 : derivative * (kept - offset);
}

/// Likewise of a thread's pairs, hidden ones too.
template <class Shape>
__device__ void weights_and_gradients(const AttentionView& args, unsigned visible, unsigned kept,
                                      const QuerySums (&sums)[Shape::kRows], Scores<Shape>& weights,
                                      Scores<Shape>& d_weights) {
#pragma unroll
  for (int r = 0; r < Shape::kRows; ++r) {
#pragma unroll
    for (int m = 0; m < Shape::kColumns; ++m) {
      if (!has_pair<Shape>(visible, r, m)) {
        weights[r][m] = d_weights[r][m] = 0;
        continue;
      }
      const float factor = !args.has_dropout             ? 1
                           : has_pair<Shape>(kept, r, m) ? args.draw.scale
                                                         : 0;
      weight_and_gradient(args, sums[r], factor, ExactActivation{args.silu_divisor}, weights[r][m],
                          d_weights[r][m]);
    }
  }
}

}  // namespace serrate
