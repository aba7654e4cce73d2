#include <cstddef>
#include <cstdint>

#include "tests/fuzz/check_config.h"

// libFuzzer's name.
// NOLINTNEXTLINE(readability-identifier-naming)
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  serrate::check_config({reinterpret_cast<const char*>(data), size});
  return 0;
}
