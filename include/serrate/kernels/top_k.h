#pragma once

#include <cstdint>

#include "serrate/device_span.h"
#include "serrate/stream.h"

namespace serrate {

/// The k best columns of each row of scores: descending score, ties by ascending id. `first_id` is
/// the id of column 0. Excluded ids are left out; a row with fewer than k candidates is filled
/// with id -1 and score -inf. A score that is not a number has no place in the order: its row gets
/// k times id -1 and score NaN.
struct TopK {
  DeviceMatrix<const float> scores;  ///< [n, num_candidates]
  std::int64_t first_id = 0;
  DeviceSpan<const std::int64_t> excluded;          ///< ids, row after row
  DeviceSpan<const std::int64_t> excluded_offsets;  ///< [n + 1], or empty for none
  DeviceMatrix<float> best_scores;                  ///< [n, k]
  DeviceMatrix<std::int64_t> best_ids;              ///< [n, k]
};

void top_k(const TopK& args, const Stream& stream);

template <DeviceType D>
void top_k_on(const TopK&, const Stream&);

}  // namespace serrate
