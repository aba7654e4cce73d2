#include "serrate/kernels/copy_runs.h"

#include <algorithm>

namespace serrate {

template <DeviceType D, typename T>
void copy_runs_on(std::span<const CopyRun<T>> runs, const Stream& stream) {
  static_assert(D == DeviceType::kCpu);
  for (const CopyRun<T>& run : runs) {
    std::ranges::copy(host_view(run.from, stream), host_view(run.to, stream).begin());
  }
}

template void copy_runs_on<DeviceType::kCpu>(std::span<const CopyRun<std::int64_t>>, const Stream&);
template void copy_runs_on<DeviceType::kCpu>(std::span<const CopyRun<float>>, const Stream&);

}  // namespace serrate
