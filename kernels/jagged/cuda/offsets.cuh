#pragma once

#include <cub/block/block_scan.cuh>

#include "serrate/device_span.h"
#include "src/core/launch.cuh"

namespace serrate {

constexpr int kOffsetThreads = 512;

/// offsets[b] = the sum of size(0) to size(b - 1), by one block, which takes as many samples at a
/// time as it has threads.
template <typename Size>
__global__ void __launch_bounds__(kOffsetThreads)
    sum_sizes(Size size, std::int64_t* offsets, std::int64_t batch_size) {
  using Scan = cub::BlockScan<std::int64_t, kOffsetThreads>;
  __shared__ typename Scan::TempStorage storage;
  std::int64_t before = 0;
  if (threadIdx.x == 0) offsets[0] = 0;
  for (std::int64_t first = 0; first < batch_size; first += kOffsetThreads) {
    const std::int64_t b = first + threadIdx.x;
    std::int64_t up_to, all;
    Scan(storage).InclusiveSum(b < batch_size ? size(b) : 0, up_to, all);
    if (b < batch_size) offsets[b + 1] = before + up_to;
    before += all;
    __syncthreads();  // before the scan's memory is used again
  }
}

/// For offsets [batch_size + 1].
template <typename Size>
void launch_offsets(const Size& size, DeviceSpan<std::int64_t> offsets, const Stream& stream) {
  launch(sum_sizes<Size>, 1, kOffsetThreads, 0, stream, size, offsets.device_data(),
         static_cast<std::int64_t>(offsets.size()) - 1);
}

}  // namespace serrate
