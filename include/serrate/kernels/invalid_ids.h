#pragma once

#include <cstdint>
#include <span>

#include "serrate/buffer.h"
#include "serrate/jagged_tensor.h"

namespace serrate {

/// The bags of a feature after drop_invalid_ids.
struct ValidIds {
  Buffer<std::int64_t> values;
  Buffer<std::int64_t> offsets;
  Buffer<float> weights;

  JaggedView view() const { return {values.span(), offsets.span(), weights.span()}; }
};

/// `feature` without the ids outside [0, num_rows) and their weights. Returns how many they were.
std::int64_t drop_invalid_ids(const JaggedView& feature, std::int64_t num_rows, ValidIds& result,
                              const Stream& stream);
/// result = values with `replacement` for the ids outside [0, num_rows). Returns how many.
std::int64_t replace_invalid_ids(std::span<const std::int64_t> values, std::int64_t num_rows,
                                 std::int64_t replacement, std::span<std::int64_t> result,
                                 const Stream& stream);

template <DeviceType D>
std::int64_t drop_invalid_ids_on(const JaggedView&, std::int64_t num_rows, ValidIds&,
                                 const Stream&);
template <DeviceType D>
std::int64_t replace_invalid_ids_on(std::span<const std::int64_t>, std::int64_t num_rows,
                                    std::int64_t replacement, std::span<std::int64_t>,
                                    const Stream&);

}  // namespace serrate
