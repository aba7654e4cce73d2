#pragma once

#include <cstdint>
#include <vector>

namespace simt {

struct LiveObjects {
  std::vector<std::uint64_t> allocations;  // their numbers
  std::size_t streams = 0, events = 0;
};
/// What the program has not freed; runs all that is queued first.
LiveObjects live_objects();

}  // namespace simt
