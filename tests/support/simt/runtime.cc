// The calls of cuda_runtime_api.h on errors, devices, streams and events. What the real runtime
// leaves undefined is a finding.
#include "tests/support/simt/runtime.h"

#include <cuda.h>

#include <cstdio>

#include "tests/support/simt/device.h"
#include "tests/support/simt/grid.h"
#include "tests/support/simt/library.h"
#include "tests/support/simt/memory.h"
#include "tests/support/simt/test_environment.h"

namespace simt {

Handles& handles() {
  static Handles instance;
  return instance;
}

cudaError_t fail(cudaError_t error) {
  handles().last_error = error;
  return error;
}

cudaError_t misuse(cudaError_t error, const std::string& text) {
  report_call(Kind::kBadCall, text);
  return fail(error);
}

cudaError_t result() {
  return sticky_error() ? static_cast<cudaError_t>(sticky_error()) : cudaSuccess;
}

bool is_stream(cudaStream_t stream) {
  return stream_exists(stream_id(stream));
}

cudaError_t no_stream(const char* call, cudaStream_t stream) {
  return misuse(cudaErrorInvalidResourceHandle, std::string(call) + ": stream " +
                                                    std::to_string(stream_id(stream)) +
                                                    " does not exist or was destroyed");
}

bool is_stream_of(int device, const char* call, cudaStream_t stream) {
  const int of_stream = device_of(stream_id(stream));
  if (of_stream == device) return true;
  misuse(cudaErrorInvalidResourceHandle,
         std::string(call) + ": stream " + std::to_string(stream_id(stream)) + " is of device " +
             std::to_string(of_stream) + ", not of " + std::to_string(device));
  return false;
}

namespace {

Event* event_of(cudaEvent_t event) {
  const auto found = handles().events.find(reinterpret_cast<std::uintptr_t>(event));
  return found == handles().events.end() ? nullptr : &found->second;
}

cudaError_t no_event(const char* call) {
  return misuse(cudaErrorInvalidResourceHandle,
                std::string(call) + ": the event does not exist or was destroyed");
}

}  // namespace

LiveObjects live_objects() {
  const Lock lock;
  synchronize_all();
  Memory::instance().leave_freed();
  LiveObjects live;
  for (const auto& [begin, allocation] : Memory::instance().allocations()) {
    if (!allocation.free_queued) live.allocations.push_back(allocation.number);
  }
  live.streams = live_streams();
  live.events = handles().events.size();
  return live;
}

}  // namespace simt

using namespace simt;

extern "C" {

cudaError_t cudaGetLastError() {
  const Lock lock;
  const cudaError_t error = cudaPeekAtLastError();
  handles().last_error = cudaSuccess;
  return error;
}

cudaError_t cudaPeekAtLastError() {
  const Lock lock;
  return sticky_error() ? result() : handles().last_error;
}

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    case cudaErrorInvalidDevice:
      return "cudaErrorInvalidDevice";
    case cudaErrorInvalidResourceHandle:
      return "cudaErrorInvalidResourceHandle";
    case cudaErrorNotReady:
      return "cudaErrorNotReady";
    case cudaErrorCooperativeLaunchTooLarge:
      return "cudaErrorCooperativeLaunchTooLarge";
    case cudaErrorInvalidClusterSize:
      return "cudaErrorInvalidClusterSize";
    case cudaErrorLaunchFailure:
      return "cudaErrorLaunchFailure";
  }
  return "?";
}

const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorLaunchFailure ? "a kernel failed on the simulated device"
                                         : cudaGetErrorName(error);
}

cudaError_t cudaGetDriverEntryPointByVersion(const char* symbol, void** function, unsigned,
                                             unsigned long long,
                                             cudaDriverEntryPointQueryResult* status) {
  const bool found = std::string(symbol) == "cuTensorMapEncodeTiled";
  *function = found ? reinterpret_cast<void*>(cuTensorMapEncodeTiled) : nullptr;
  if (status) *status = found ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = num_devices();
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  *device = current_device();
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  const Lock lock;
  if (device < 0 || device >= num_devices()) return fail(cudaErrorInvalidDevice);
  set_current_device(device);
  return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize() {
  const Lock lock;
  count_host_synchronization();
  synchronize_all();
  return result();
}

cudaError_t cudaDeviceGetPCIBusId(char* id, int size, int device) {
  std::snprintf(id, static_cast<std::size_t>(size), "0000:%02x:00.0",
                static_cast<unsigned>(device));
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
      *value = kMaxThreads;
      break;
    case cudaDevAttrMultiProcessorCount:
      *value = 4;
      break;
    case cudaDevAttrComputeCapabilityMajor:
      *value = architecture().major;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = architecture().minor;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = static_cast<int>(architecture().shared_bytes);
      break;
  }
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  const Lock lock;
  *stream = reinterpret_cast<cudaStream_t>(
      static_cast<std::uintptr_t>(create_stream(!(flags & cudaStreamNonBlocking))));
  return result();
}

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const Lock lock;
  return destroy_stream(stream_id(stream)) ? result() : no_stream("cudaStreamDestroy", stream);
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const Lock lock;
  if (!is_stream(stream)) return no_stream("cudaStreamSynchronize", stream);
  count_host_synchronization();
  synchronize(stream_id(stream));
  return result();
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
  const Lock lock;
  if (!is_stream(stream)) return no_stream("cudaStreamQuery", stream);
  if (!stream_is_idle(stream_id(stream))) {
    make_progress();
    return cudaErrorNotReady;
  }
  synchronize(stream_id(stream));
  return result();
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const Lock lock;
  if (!is_stream(stream)) return no_stream("cudaStreamWaitEvent", stream);
  if (!event_of(event)) return no_event("cudaStreamWaitEvent");
  wait_for_event(stream_id(stream), *event_of(event));
  return result();
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, void (*function)(void*), void* data) {
  const Lock lock;
  if (!is_stream(stream)) return no_stream("cudaLaunchHostFunc", stream);
  enqueue(stream_id(stream), "a host function", [=](const Operation&) { function(data); });
  return result();
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  const Lock lock;
  *event = reinterpret_cast<cudaEvent_t>(handles().next_event);
  handles().events[handles().next_event++].device = current_device();
  return result();
}

cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  const Lock lock;
  return handles().events.erase(reinterpret_cast<std::uintptr_t>(event))
             ? result()
             : no_event("cudaEventDestroy");
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const Lock lock;
  if (!is_stream(stream)) return no_stream("cudaEventRecord", stream);
  if (!event_of(event)) return no_event("cudaEventRecord");
  if (!is_stream_of(event_of(event)->device, "cudaEventRecord, by the event", stream)) {
    return cudaErrorInvalidResourceHandle;
  }
  record_event(*event_of(event), stream_id(stream));
  return result();
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const Lock lock;
  if (!event_of(event)) return no_event("cudaEventSynchronize");
  count_host_synchronization();
  synchronize_event(*event_of(event));
  return result();
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  const Lock lock;
  if (!event_of(event)) return no_event("cudaEventQuery");
  if (!*event_of(event)->done) {
    make_progress();
    return cudaErrorNotReady;
  }
  synchronize_event(*event_of(event));
  return result();
}

// Time does not pass on the simulated device.
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  const Lock lock;
  if (!event_of(begin) || !event_of(end)) return no_event("cudaEventElapsedTime");
  if (event_of(begin)->device != event_of(end)->device) {
    return misuse(cudaErrorInvalidResourceHandle,
                  "cudaEventElapsedTime: the events are of two devices");
  }
  if (!event_of(begin)->recorded || !event_of(end)->recorded) return fail(cudaErrorInvalidValue);
  if (!*event_of(begin)->done || !*event_of(end)->done) return cudaErrorNotReady;
  *milliseconds = 0;
  return result();
}
}
