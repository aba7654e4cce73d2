// Every thread takes elements of its own through all additions, so that nobody has to wait for
// anybody; the additions travel with the launch.

#include <algorithm>

#include "src/core/launch.cuh"
#include "src/core/ordered_sum.h"

namespace serrate {
namespace {

constexpr int kThreads = 256;
constexpr std::int64_t kMostBlocks = 4096;
constexpr std::size_t kAdditionsPerLaunch =
    64;  // 1 KiB of the 4 that a kernel's arguments may have

template <typename T>
struct AdditionList {
  Addition<T> additions[kAdditionsPerLaunch];
  int count;
};

// Element i, i + all threads, ... for each thread.
template <typename T>
__global__ void add_in_order_kernel(AdditionList<T> list, std::int64_t size) {
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < size;
       i += stride) {
    for (int a = 0; a < list.count; ++a) list.additions[a].into[i] += list.additions[a].term[i];
  }
}

}  // namespace

template <DeviceType D, typename T>
void add_in_order_on(std::span<const Addition<T>> additions, std::int64_t size,
                     const Stream& stream) {
  static_assert(D == DeviceType::kCuda);
  const auto blocks =
      static_cast<unsigned>(std::min((size + kThreads - 1) / kThreads, kMostBlocks));
  while (!additions.empty()) {
    AdditionList<T> list{};
    const std::size_t count = std::min(additions.size(), kAdditionsPerLaunch);
    std::copy_n(additions.begin(), count, list.additions);
    list.count = static_cast<int>(count);
    launch(add_in_order_kernel<T>, blocks, kThreads, 0, stream, list, size);
    additions = additions.subspan(count);
  }
}

template void add_in_order_on<DeviceType::kCuda>(std::span<const Addition<float>>, std::int64_t,
                                                 const Stream&);
template void add_in_order_on<DeviceType::kCuda>(std::span<const Addition<double>>, std::int64_t,
                                                 const Stream&);
template void add_in_order_on<DeviceType::kCuda>(std::span<const Addition<std::int64_t>>,
                                                 std::int64_t, const Stream&);

}  // namespace serrate
