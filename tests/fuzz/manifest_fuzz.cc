#include <cstddef>
#include <cstdint>

#include "tests/fuzz/check_manifest.h"

// libFuzzer's name.
// NOLINTNEXTLINE(readability-identifier-naming)
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  serrate::check_manifest({reinterpret_cast<const char*>(data), size});
  return 0;
}
