#pragma once

namespace simt {

constexpr int kMostDevices = 8;

/// How many there are: SERRATE_SIMT_DEVICES, or 1.
int num_devices();
/// The device of this host thread (cudaSetDevice).
int current_device();
void set_current_device(int device);

}  // namespace simt
