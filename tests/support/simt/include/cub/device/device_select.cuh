#pragma once

#include <cub/device/scratch.cuh>

namespace cub {
namespace simulated {

template <typename In, typename Out, typename Count, typename Predicate>
__global__ void select_if(std::uint8_t* scratch, In in, Out out, Count count, std::int64_t size,
                          Predicate predicate) {
  spoil(scratch);
  std::int64_t selected = 0;
  for (std::int64_t i = 0; i < size; ++i) {
    const auto value = in[i];
    if (predicate(value)) out[selected++] = value;
  }
  *count = static_cast<std::remove_reference_t<decltype(*count)>>(selected);
}

}  // namespace simulated

struct DeviceSelect {
  template <typename In, typename Out, typename Count, typename Predicate>
  static cudaError_t If(void* scratch, std::size_t& bytes, In in, Out out, Count count,
                        std::int64_t size, Predicate predicate, cudaStream_t stream = nullptr) {
    if (!scratch) {
      bytes = simulated::kScratchBytes;
      return cudaSuccess;
    }
    return simulated::run(simulated::select_if<In, Out, Count, Predicate>, scratch, bytes, stream,
                          in, out, count, size, predicate);
  }
};

}  // namespace cub
