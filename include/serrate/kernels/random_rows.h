#pragma once

#include <cstdint>

#include "serrate/any_matrix.h"
#include "serrate/stream.h"

namespace serrate {

/// First weights of a part of a table: uniform in [-scale, scale), rounded to the type of `rows`,
/// to nearest with halves to even. Column c of row r of the table has word c % 4 of philox4x32 of
/// {n, n >> 32, stream, RandomUse::kInit} by the seed, n being r * ceil(table_columns / 4) + c / 4:
/// the upper 24 bits of it as a signed fraction. The same bits on every device.
struct RandomRows {
  OutputMatrix rows;  ///< of any type
  std::int64_t first_row = 0, first_column = 0;
  std::int64_t table_columns = 0;
  float scale = 1;
  std::uint64_t seed = 0;
  std::uint32_t stream = 0;  ///< of random numbers
};
void random_rows(const RandomRows& args, const Stream& stream);

template <DeviceType D>
void random_rows_on(const RandomRows&, const Stream&);

}  // namespace serrate
