#pragma once

#include <cstdint>

#include "serrate/kernels/attention.h"

namespace serrate {

inline std::int64_t ceil_div(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}

/// A sequence's queries: the first in q, the first in what has a row per query of the batch, and
/// how many.
struct SequenceQueries {
  std::int64_t in_q, in_out, count;
};

inline SequenceQueries queries_of(const AttentionForward& args, std::int64_t sequence) {
  const std::int64_t shared = args.num_shared_queries;
  if (shared > 0) return {0, sequence * shared, shared};
  const std::int64_t first = args.query_offsets[sequence];
  return {first, first, args.query_offsets[sequence + 1] - first};
}

inline std::int64_t num_keys_of(const AttentionForward& args, std::int64_t sequence) {
  return args.key_offsets[sequence + 1] - args.key_offsets[sequence];
}

inline std::int64_t batch_size_of(const AttentionForward& args) {
  return std::ssize(args.key_offsets) - 1;
}

/// The number of rows up to the last query's in what has a row per query of the batch.
inline std::int64_t end_of_queries(const AttentionForward& args) {
  return args.num_shared_queries > 0 ? batch_size_of(args) * args.num_shared_queries
                                     : args.query_offsets.back();
}

inline std::int64_t num_key_heads_of(const AttentionForward& args) {
  return args.num_key_heads > 0 ? args.num_key_heads : args.num_heads;
}

inline std::int64_t heads_per_key_head(const AttentionForward& args) {
  return args.num_heads / num_key_heads_of(args);
}

}  // namespace serrate
