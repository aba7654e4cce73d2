#pragma once

#include <cstdint>

#include "serrate/device_span.h"
#include "serrate/stream.h"

namespace serrate {

/// Where the [M_b, N_b] pairs of sample b begin, from 0, given the offsets of the M_b rows and of
/// the N_b columns; all [batch_size + 1].
void pair_offsets(DeviceSpan<const std::int64_t> row_offsets,
                  DeviceSpan<const std::int64_t> col_offsets, DeviceSpan<std::int64_t> offsets,
                  const Stream& stream);

/// What every time but the last of a sequence is after every time but the first: z_b[i][j] =
/// x_b[i] - x_b[j + 1], [N_b - 1, N_b - 1] (FBGEMM's jagged_self_substraction_jagged_out; no
/// gradient). Nothing for sequences of one and none.
struct JaggedSelfSubtraction {
  DeviceSpan<const std::int64_t> x;          ///< as timestamps, in any unit
  DeviceSpan<const std::int64_t> offsets;    ///< [batch_size + 1]
  DeviceSpan<std::int64_t> z;                ///< [sum of max(N_b - 1, 0)^2]
  DeviceSpan<const std::int64_t> z_offsets;  ///< [batch_size + 1]
};

void jagged_self_subtraction(const JaggedSelfSubtraction& args, const Stream& stream);
/// The z_offsets, from 0, of sequences with these offsets.
void self_subtraction_offsets(DeviceSpan<const std::int64_t> offsets,
                              DeviceSpan<std::int64_t> z_offsets, const Stream& stream);

template <DeviceType D>
void pair_offsets_on(DeviceSpan<const std::int64_t>, DeviceSpan<const std::int64_t>,
                     DeviceSpan<std::int64_t>, const Stream&);
template <DeviceType D>
void jagged_self_subtraction_on(const JaggedSelfSubtraction&, const Stream&);
template <DeviceType D>
void self_subtraction_offsets_on(DeviceSpan<const std::int64_t>, DeviceSpan<std::int64_t>,
                                 const Stream&);

}  // namespace serrate
