#include "serrate/kernels/invalid_ids.h"

#include "kernels/cpu_only.h"

namespace serrate {

std::int64_t drop_invalid_ids(const JaggedView& feature, std::int64_t num_rows, ValidIds& result,
                              const Stream& stream) {
  check(feature.weights.empty() || feature.weights.size() == feature.values.size(),
        "weights must be empty or one per id");
  return dispatch_cpu_only(stream.device(), "drop_invalid_ids", [&](auto device) {
    return drop_invalid_ids_on<device()>(feature, num_rows, result, stream);
  });
}

std::int64_t replace_invalid_ids(std::span<const std::int64_t> values, std::int64_t num_rows,
                                 std::int64_t replacement, std::span<std::int64_t> result,
                                 const Stream& stream) {
  check(values.size() == result.size(), "values and result must have the same size");
  return dispatch_cpu_only(stream.device(), "replace_invalid_ids", [&](auto device) {
    return replace_invalid_ids_on<device()>(values, num_rows, replacement, result, stream);
  });
}

}  // namespace serrate
