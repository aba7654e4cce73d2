#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <utility>

#include "src/core/cuda_check.h"

namespace serrate {

/// Queues a kernel: every launch goes through here. `shared_bytes` is the dynamic shared memory of
/// a block. Blocks that follow each other in x are clusters of `cluster_size`, of which grid.x is a
/// multiple. More than one needs sm_90; more than 8 is refused, as it would need
/// cudaFuncAttributeNonPortableClusterSizeAllowed. The stream's device is the current one
/// (dispatch_device).
template <typename... Parameters, typename... Arguments>
void launch_clusters(unsigned cluster_size, void (*kernel)(Parameters...), dim3 grid, dim3 block,
                     std::size_t shared_bytes, const Stream& stream, Arguments&&... arguments) {
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim.x = cluster_size;
  cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = cuda_stream(stream);
  config.attrs = &cluster;
  config.numAttrs = cluster_size == 1 ? 0 : 1;
  cuda_check(cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...));
}

/// The same of blocks that stand alone.
template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes,
            const Stream& stream, Arguments&&... arguments) {
  launch_clusters(1, kernel, grid, block, shared_bytes, stream,
                  std::forward<Arguments>(arguments)...);
}

}  // namespace serrate
