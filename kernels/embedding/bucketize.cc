#include "serrate/kernels/bucketize.h"

#include <algorithm>

#include "kernels/cpu_only.h"

namespace serrate {

void bucketize(const JaggedView& feature, std::span<const std::int64_t> row_splits,
               BucketizedIds& result, const Stream& stream) {
  check(!feature.offsets.empty(), "offsets must be [num_bags + 1]");
  check(feature.weights.empty() || feature.weights.size() == feature.values.size(),
        "weights must be empty or as many as values");
  check(row_splits.size() >= 2 && row_splits[0] == 0 && std::ranges::is_sorted(row_splits),
        "row_splits must rise from 0 to the number of rows");
  dispatch_cpu_only(stream.device(), "bucketize", [&](auto device) {
    bucketize_on<device()>(feature, row_splits, result, stream);
  });
}

std::int64_t find_invalid_id(std::span<const std::int64_t> values, std::int64_t num_rows,
                             const Stream& stream) {
  return dispatch_cpu_only(stream.device(), "find_invalid_id", [&](auto device) {
    return find_invalid_id_on<device()>(values, num_rows, stream);
  });
}

}  // namespace serrate
