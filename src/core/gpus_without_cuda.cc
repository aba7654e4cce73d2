#include "src/core/dispatch.h"
#include "src/core/gpus.h"

namespace serrate {

Gpus find_gpus() {
  return {.addresses = {}, .why_none = "this build is without CUDA"};
}

GpuMemory gpu_memory(Device device) {
  throw_no_backend(device);
}

std::string gpu_architecture(Device device) {
  throw_no_backend(device);
}

}  // namespace serrate
