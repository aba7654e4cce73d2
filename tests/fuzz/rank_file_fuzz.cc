#include <cstddef>
#include <cstdint>

#include "tests/fuzz/check_rank_file.h"

// libFuzzer's name.
// NOLINTNEXTLINE(readability-identifier-naming)
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  serrate::check_rank_file({reinterpret_cast<const char*>(data), size});
  return 0;
}
