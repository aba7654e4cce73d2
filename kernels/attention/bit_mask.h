#pragma once

#include <cstdint>

#include "kernels/attention/view.h"
#include "serrate/device_span.h"
#include "serrate/kernels/attention_mask.h"
#include "serrate/stream.h"

namespace serrate {

/// Queries and keys of a block that a BitMask has a bit for.
inline constexpr std::int64_t kMaskBlock = 16;

constexpr std::int64_t mask_blocks_in(std::int64_t count) {
  return ceil_div(count, kMaskBlock);
}

/// The arrays of a BitMaskView, all 0.
struct PackedBits {
  DeviceMatrix<std::uint8_t> bits, any, all;
};

template <DeviceType D>
void pack_bit_mask_on(DeviceMatrix<const std::uint8_t> visible, const PackedBits& to,
                      const Stream& stream);

}  // namespace serrate
