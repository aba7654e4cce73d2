#pragma once

#include <cstdint>
#include <span>

#include "kernels/dense/dropout_draw.h"
#include "serrate/kernels/attention.h"

namespace serrate {

constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}

/// DeviceHeads for code that runs where they are.
template <typename T>
struct HeadsView {
  T* data = nullptr;
  std::int64_t token_stride = 0, head_stride = 0;
  constexpr T* at(std::int64_t token, std::int64_t head) const {
    return data + token * token_stride + head * head_stride;
  }
};

/// The tokens, of the type they have.
template <typename T>
constexpr HeadsView<const T> view_as(const InputHeads& heads) {
  return {static_cast<const T*>(heads.device_data), heads.token_stride, heads.head_stride};
}
template <typename T>
constexpr HeadsView<T> view_as(const OutputHeads& heads) {
  return {static_cast<T*>(heads.device_data), heads.token_stride, heads.head_stride};
}

/// AttentionBias and AttentionTable likewise.
struct BiasView {
  const float* data;  // null: none
  std::int64_t sequence_stride, head_stride, query_stride, key_stride;
};
struct TableView {
  std::span<const float> values;
  std::span<const std::int64_t> boundaries;
};

/// AttentionForward as code reads it that runs where its arrays are: the CPU backend (which makes
/// sure that this is the host) and CUDA's kernels. The mask's arrays it reads by device_data().
struct AttentionView {
  InputHeads q, k, v;
  OutputHeads out;
  std::span<float> lse, partials;
  std::span<const std::int64_t> query_offsets, key_offsets;
  std::int64_t num_shared_queries, num_heads, num_key_heads, head_dim;
  float scale;
  AttentionMask mask;
  AttentionActivation activation;
  float silu_divisor;
  BiasView bias;
  TableView position_table, time_table;
  std::span<const std::int64_t> query_times, key_times, token_ids;
  bool in_tf32;
  bool has_dropout;
  DropoutDraw draw;
  /// CUDA: rows of a sequence that decodes, at most (decoding.h); 0: none does.
  std::int64_t most_decoding_rows = 0;
};

/// AttentionBackward likewise.
struct AttentionBackwardView {
  AttentionView forward;
  InputHeads d_out;
  OutputHeads d_q, d_k, d_v;
  float* d_bias;  // null: none
  std::span<float> d_position_table, d_time_table;
};

inline std::int64_t num_key_heads_of(const AttentionForward& args) {
  return args.num_key_heads > 0 ? args.num_key_heads : args.num_heads;
}

AttentionView view_of(const AttentionForward& args);
AttentionBackwardView view_of(const AttentionBackward& args);

/// Throws unless the call's own partials, if it has any, are enough.
void check_partials(const AttentionView& args, std::int64_t needed);

/// A sequence's queries: the first in q, the first in what has a row per query of the batch, and
/// how many.
struct SequenceQueries {
  std::int64_t in_q, in_out, count;
};

constexpr SequenceQueries queries_of(const AttentionView& args, std::int64_t sequence) {
  const std::int64_t shared = args.num_shared_queries;
  if (shared > 0) return {0, sequence * shared, shared};
  const std::int64_t first = args.query_offsets[sequence];
  return {first, first, args.query_offsets[sequence + 1] - first};
}

constexpr std::int64_t num_keys_of(const AttentionView& args, std::int64_t sequence) {
  return args.key_offsets[sequence + 1] - args.key_offsets[sequence];
}

constexpr std::int64_t batch_size_of(const AttentionView& args) {
  return static_cast<std::int64_t>(args.key_offsets.size()) - 1;
}

/// The number of rows up to the last query's in what has a row per query of the batch.
constexpr std::int64_t end_of_queries(const AttentionView& args) {
  return args.num_shared_queries > 0 ? batch_size_of(args) * args.num_shared_queries
                                     : args.query_offsets.back();
}

constexpr std::int64_t heads_per_key_head(const AttentionView& args) {
  return args.num_heads / args.num_key_heads;
}

constexpr std::int64_t num_entries(const TableView& table) {
  return static_cast<std::int64_t>(table.boundaries.size()) + 1;
}

}  // namespace serrate
