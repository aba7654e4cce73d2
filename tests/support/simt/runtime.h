#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <utility>

#include "tests/support/simt/library.h"

// What the calls of the runtime share (runtime.cc, runtime_memory.cc, runtime_launch.cc).

namespace simt {

struct Handles {
  std::map<std::uintptr_t, Event> events;
  std::uintptr_t next_event = 1;
  // Shared memory of kernels on a device that asked for more than 48 KiB.
  std::map<std::pair<const void*, int>, std::size_t> shared_bytes;
  cudaError_t last_error = cudaSuccess;
};
Handles& handles();

cudaError_t fail(cudaError_t error);
/// The same, and a finding.
cudaError_t misuse(cudaError_t error, const std::string& text);
/// What a call returns that did its part: an error of the kernels before it, if there was one.
cudaError_t result();

bool is_stream(cudaStream_t stream);
cudaError_t no_stream(const char* call, cudaStream_t stream);
/// A finding unless the stream is of that device.
bool is_stream_of(int device, const char* call, cudaStream_t stream);

}  // namespace simt
