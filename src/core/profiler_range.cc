#include "src/core/profiler_range.h"

#if SERRATE_WITH_CUDA && __has_include(<nvtx3/nvToolsExt.h>)
#include <nvtx3/nvToolsExt.h>
#else
namespace {

void nvtxRangePushA(const char*) {}  // NOLINT(readability-identifier-naming): NVTX's own
void nvtxRangePop() {}               // NOLINT(readability-identifier-naming)

}  // namespace
#endif

namespace serrate {

ProfilerRange::ProfilerRange(const char* name) {
  nvtxRangePushA(name);
}

ProfilerRange::~ProfilerRange() {
  nvtxRangePop();
}

}  // namespace serrate
