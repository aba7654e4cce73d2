#include <cstddef>
#include <cstdint>

#include "tests/fuzz/check_delimited_text.h"

// libFuzzer's name.
// NOLINTNEXTLINE(readability-identifier-naming)
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  serrate::check_delimited_text({reinterpret_cast<const char*>(data), size});
  return 0;
}
