#include <cstddef>
#include <cstdint>
#include <string>

#include "tests/fuzz/check_planner_files.h"

// libFuzzer's name.
// NOLINTNEXTLINE(readability-identifier-naming)
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  serrate::check_planner_files({reinterpret_cast<const char*>(data), size});
  return 0;
}
