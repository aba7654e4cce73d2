#pragma once

#include <cuda_runtime_api.h>

#include <string>
#include <vector>

#include "tests/support/simt/findings.h"
#include "tests/support/simt/stream.h"

// What the libraries on the simulated device (cuBLAS, NCCL) share: their operations wait in streams
// as kernels do, and their memory is checked as a kernel's is.

namespace simt {

/// A finding about what the host asked for.
void report_call(Kind kind, std::string text);

StreamId stream_id(cudaStream_t stream);

/// An operation reads or writes device memory, named `what` in findings: that it is there, written
/// (for reads), allocated and free in stream order, and that no other operation races. False when
/// it cannot be touched. A write marks the bytes as written.
bool library_reads(const void* data, std::size_t bytes, const std::string& what,
                   const Operation& operation);
bool library_writes(void* data, std::size_t bytes, const std::string& what,
                    const Operation& operation);

bool is_device_memory(const void* data);
bool is_pinned_memory(const void* data);
/// Whether two ranges have a byte in common.
bool overlap(const void* a, std::size_t a_bytes, const void* b, std::size_t b_bytes);

/// Handles that the program has to give back.
void library_object_made(const void* object, std::string what);
void library_object_gone(const void* object);
std::vector<std::string> live_library_objects();

}  // namespace simt
