// Launches of kernels.
#include <string>

#include "tests/support/simt/device.h"
#include "tests/support/simt/grid.h"
#include "tests/support/simt/memory.h"
#include "tests/support/simt/runtime.h"
#include "tests/support/simt/source_line.h"

namespace simt {
namespace {

constexpr std::size_t kDefaultSharedBytes = 48 << 10;
constexpr unsigned kMostInCluster = 8;  // on every device that has clusters

}  // namespace

cudaError_t launch(const cudaLaunchConfig_t& config, const void* kernel,
                   std::shared_ptr<const void> arguments, std::size_t argument_bytes,
                   void (*call)(const void*), bool may_touch_host) {
  const Lock lock;
  if (!is_stream(config.stream)) return no_stream("a kernel's launch", config.stream);
  if (!is_stream_of(current_device(), "a kernel's launch", config.stream)) {
    return cudaErrorInvalidResourceHandle;
  }
  const dim3 &g = config.gridDim, &b = config.blockDim;
  const auto shared = handles().shared_bytes.find({kernel, current_device()});
  const std::size_t most_shared =
      shared == handles().shared_bytes.end() ? kDefaultSharedBytes : shared->second;
  if (g.x == 0 || g.y == 0 || g.z == 0 || b.x == 0 || b.y == 0 || b.z == 0 || g.x > 0x7FFFFFFF ||
      g.y > 65535 || g.z > 65535 || b.z > 64 || std::size_t{b.x} * b.y * b.z > kMaxThreads ||
      config.dynamicSmemBytes > most_shared) {
    return fail(cudaErrorInvalidConfiguration);
  }
  bool cooperative = false;
  unsigned cluster_size = 1;
  for (unsigned i = 0; i < config.numAttrs; ++i) {
    const cudaLaunchAttributeValue& value = config.attrs[i].val;
    switch (config.attrs[i].id) {
      case cudaLaunchAttributeCooperative:
        cooperative = value.cooperative != 0;
        break;
      case cudaLaunchAttributeClusterDimension:
        cluster_size = value.clusterDim.x;
        if (cluster_size == 0 || cluster_size > kMostInCluster || g.x % cluster_size != 0 ||
            value.clusterDim.y != 1 || value.clusterDim.z != 1 || architecture().major < 9) {
          return fail(cudaErrorInvalidClusterSize);
        }
        break;
      default:
        return fail(cudaErrorInvalidConfiguration);
    }
  }
  if (cooperative && std::size_t{g.x} * g.y * g.z > kMostResident) {
    return fail(cudaErrorCooperativeLaunchTooLarge);
  }
  if (sticky_error()) return result();
  Launch launch;
  launch.kernel = kernel;
  launch.grid = {g.x, g.y, g.z};
  launch.block = {b.x, b.y, b.z};
  launch.shared_bytes = config.dynamicSmemBytes;
  launch.arguments = arguments.get();
  launch.argument_bytes = argument_bytes;
  launch.call = call;
  launch.cluster_size = cluster_size;
  launch.cooperative = cooperative;
  launch.may_touch_host = may_touch_host;
  enqueue(stream_id(config.stream), "kernel " + function_name(kernel),
          [launch, arguments](const Operation& operation) {
            if (!run_grid(launch, operation)) set_sticky_error(cudaErrorLaunchFailure);
          });
  return cudaSuccess;
}

}  // namespace simt

using namespace simt;

cudaError_t simt_set_attribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  const Lock lock;
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  if (value < 0 || static_cast<std::size_t>(value) > architecture().shared_bytes) {
    return fail(cudaErrorInvalidValue);
  }
  handles().shared_bytes[{kernel, current_device()}] = static_cast<std::size_t>(value);
  return cudaSuccess;
}

// As if all had been built for the device.
cudaError_t simt_get_attributes(cudaFuncAttributes* attributes, const void*) {
  attributes->ptxVersion = 10 * architecture().major + architecture().minor;
  return cudaSuccess;
}
