#include "serrate/kernels/copy_runs.h"

#include "src/core/dispatch.h"

namespace serrate {

template <typename T>
void copy_runs(std::span<const CopyRun<T>> runs, const Stream& stream) {
  for (const CopyRun<T>& run : runs) {
    check(run.from.size() == run.to.size(), "copy_runs needs spans of the same size");
  }
  dispatch_device(stream.device(), [&](auto device) { copy_runs_on<device()>(runs, stream); });
}

template void copy_runs(std::span<const CopyRun<std::int64_t>>, const Stream&);
template void copy_runs(std::span<const CopyRun<float>>, const Stream&);

}  // namespace serrate
