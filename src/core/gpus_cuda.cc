#include <array>
#include <cstdint>

#include "src/core/cuda_check.h"
#include "src/core/cuda_device_scope.h"
#include "src/core/gpus.h"

namespace serrate {

Gpus find_gpus() {
  Gpus gpus;
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) {
    cudaGetLastError();  // so that the next call does not report this error again
    gpus.why_none = std::string("CUDA finds none: ") + cudaGetErrorString(status);
    return gpus;
  }
  if (count == 0) gpus.why_none = "CUDA finds none";
  for (int index = 0; index < count; ++index) {
    std::array<char, 32> address{};
    cuda_check(cudaDeviceGetPCIBusId(address.data(), static_cast<int>(address.size()), index));
    gpus.addresses.emplace_back(address.data());
  }
  return gpus;
}

GpuMemory gpu_memory(Device device) {
  const CudaDeviceScope scope(device);
  std::size_t available = 0, total = 0;
  cuda_check(cudaMemGetInfo(&available, &total));
  // Buffers are made from the pool, which keeps what they free (memory_cuda.cc).
  cudaMemPool_t pool = nullptr;
  std::uint64_t reserved = 0, used = 0;
  cuda_check(cudaDeviceGetDefaultMemPool(&pool, device.index));
  cuda_check(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrReservedMemCurrent, &reserved));
  cuda_check(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &used));
  return {.total = static_cast<std::int64_t>(total),
          .available = static_cast<std::int64_t>(available + reserved - used)};
}

std::string gpu_architecture(Device device) {
  int major = 0, minor = 0;
  cuda_check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device.index));
  cuda_check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device.index));
  return "sm_" + std::to_string(major) + std::to_string(minor);
}

}  // namespace serrate
