// NVTX: the file that SERRATE_SIMT_RANGES names gets a line with the name of each range that ends.
#include <nvtx3/nvToolsExt.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace {

std::vector<std::string>& open_ranges() {
  thread_local std::vector<std::string> ranges;
  return ranges;
}

}  // namespace

extern "C" {

int nvtxRangePushA(const char* message) {
  open_ranges().emplace_back(message);
  return static_cast<int>(open_ranges().size()) - 1;
}

int nvtxRangePop() {
  if (open_ranges().empty()) return -1;
  const std::string name = open_ranges().back() + "\n";
  open_ranges().pop_back();
  if (const char* const path = std::getenv("SERRATE_SIMT_RANGES")) {
    if (std::FILE* const file = std::fopen(path, "a")) {
      std::fputs(name.c_str(), file);
      std::fclose(file);
    }
  }
  return static_cast<int>(open_ranges().size());
}

}  // extern "C"
