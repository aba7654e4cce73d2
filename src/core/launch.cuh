#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <utility>

#include "src/core/cuda_check.h"

namespace serrate {

/// Queues a kernel: every launch goes through here. `shared_bytes` is the dynamic shared memory of
/// a block. The stream's device is the current one (dispatch_device).
template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes,
            const Stream& stream, Arguments&&... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = cuda_stream(stream);
  cuda_check(cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...));
}

}  // namespace serrate
