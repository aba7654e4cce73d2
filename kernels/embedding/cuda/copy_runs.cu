// Messages are packed from many short runs: a block of threads copies a piece of one of them.
#include "kernels/embedding/cuda/segment_tiles.cuh"
#include "serrate/kernels/copy_runs.h"
#include "src/core/launch.cuh"

namespace serrate {
namespace {

constexpr std::int64_t kTile = 4 * kBlockSize;

template <typename T>
struct Run {
  const T* from;
  T* to;
  std::int64_t size;
  std::int64_t first_block = 0;
};

template <typename T>
__global__ void copy_tiles(const Run<T>* runs, int num_runs) {
  const Run<T> run = segment_of_block(runs, num_runs);
  const std::int64_t first = first_of_tile(run, kTile) + threadIdx.x;
#pragma unroll
  for (std::int64_t k = 0; k < kTile; k += kBlockSize) {
    if (first + k < run.size) run.to[first + k] = run.from[first + k];
  }
}

}  // namespace

template <DeviceType D, typename T>
void copy_runs_on(std::span<const CopyRun<T>> runs, const Stream& stream) {
  static_assert(D == DeviceType::kCuda);
  SegmentTiles<Run<T>> tiles;
  for (const CopyRun<T>& run : runs) {
    const std::int64_t size = std::ssize(run.from);
    tiles.add({run.from.device_data(), run.to.device_data(), size}, size, kTile);
  }
  if (tiles.num_segments() == 0) return;
  const Buffer<Run<T>> on_device = tiles.on_device(stream);
  launch(copy_tiles<T>, tiles.num_blocks(), kBlockSize, 0, stream, on_device.device_data(),
         tiles.num_segments());
}

template void copy_runs_on<DeviceType::kCuda>(std::span<const CopyRun<std::int64_t>>,
                                              const Stream&);
template void copy_runs_on<DeviceType::kCuda>(std::span<const CopyRun<float>>, const Stream&);

}  // namespace serrate
