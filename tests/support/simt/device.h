#pragma once

#include <cstddef>

namespace simt {

constexpr int kMostDevices = 8;

/// How many there are: SERRATE_SIMT_DEVICES, or 1.
int num_devices();
/// What they say they are, by SERRATE_SIMT_ARCH: 80, 86, 89, 90 (or none), 100 or 120. Their
/// instructions are all the same; what differs is the shared memory that a block may have.
struct Architecture {
  int major, minor;
  std::size_t shared_bytes;
};
const Architecture& architecture();
/// The device of this host thread (cudaSetDevice).
int current_device();
void set_current_device(int device);

}  // namespace simt
