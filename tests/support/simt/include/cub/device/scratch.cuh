#pragma once

#include <cuda_runtime.h>

#include <cstdint>

// Device-wide calls are kernels of one thread: slow, with all checks. They make use of all the
// temporary memory that they ask for, as the real ones may.
namespace cub::simulated {

constexpr std::size_t kScratchBytes = 1024;

inline void spoil(std::uint8_t* scratch) {
  for (std::size_t i = 0; i < kScratchBytes; i += 8) {
    *reinterpret_cast<std::uint64_t*>(scratch + i) = 0xABABABABABABABAB;
  }
}

template <typename... Parameters, typename... Arguments>
cudaError_t run(void (*kernel)(Parameters...), void* scratch, std::size_t bytes,
                cudaStream_t stream, Arguments... arguments) {
  if (bytes < kScratchBytes) return cudaErrorInvalidValue;
  const cudaLaunchConfig_t config{1, 1, 0, stream, nullptr, 0};
  return simt::launch_kernel(config, true, kernel, static_cast<std::uint8_t*>(scratch),
                             arguments...);
}

/// A coin of the schedule, for what a call leaves open.
bool coin();

}  // namespace cub::simulated
