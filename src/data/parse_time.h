#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace serrate {

/// Microseconds since 1970 UTC of a time written as seconds since then, whole or with a fraction
/// (978300760, 978300760.5, 9.783e8), or by ISO 8601 as a date, or a date and a time behind a `T`
/// or a space: 2010-12-01, 2010-12-01 08:26, 2010-12-01T08:26:00.25Z, 2010-12-01T08:26+01:00; UTC
/// when no zone is given. Nothing for other texts and for times beyond the year 200,000.
std::optional<std::int64_t> parse_time_us(std::string_view text);

}  // namespace serrate
