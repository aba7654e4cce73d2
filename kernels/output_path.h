#pragma once

#include <cstdint>

#include "kernels/host_batch.h"

namespace serrate {

/// How an op writes its results: as stores do, or past the caches (kernels/simd/output-inl.h).
enum class OutputPath { kCached, kStreamed };

/// How many values the samples of a batch have together.
inline std::int64_t count_values(const HostBatch<const float>& batch) {
  if (!batch.value_offsets.empty()) return batch.value_offsets.back() - batch.value_offsets.front();
  const std::int64_t rows = batch.row_offsets.empty()
                                ? batch.batch_size * batch.rows
                                : batch.row_offsets.back() - batch.row_offsets.front();
  return rows * batch.cols;
}

/// For an op that writes all of `output`. Where the caches cannot hold it, nothing is gained by
/// what is left of it there; but a plain store to a line that they do not hold reads it first.
inline OutputPath output_path(const HostBatch<const float>& output) {
  constexpr std::int64_t kMoreThanCachesHold = 4 << 20;  // values: 16 MB
  return count_values(output) >= kMoreThanCachesHold ? OutputPath::kStreamed : OutputPath::kCached;
}

}  // namespace serrate
