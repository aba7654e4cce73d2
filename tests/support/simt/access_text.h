#pragma once

#include <cstddef>
#include <string>

#include "tests/support/simt/observe.h"
#include "tests/support/simt/race.h"

// How findings speak of accesses.
namespace simt {

/// "reads 4 bytes at "
std::string sized(Touch touch, std::size_t bytes);
/// "which thread (0, 0, 0) wrote at file:line", of an access of the grid that runs.
std::string other_side(const Access& other);

}  // namespace simt
