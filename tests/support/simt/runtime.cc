// The calls of cuda_runtime_api.h. What the real runtime leaves undefined is a finding.
#include <cuda.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>
#include <mutex>
#include <vector>

#include "tests/support/simt/memory.h"
#include "tests/support/simt/observe.h"
#include "tests/support/simt/source_line.h"
#include "tests/support/simt/stream.h"
#include "tests/support/simt/test_environment.h"

namespace simt {
namespace {

constexpr std::size_t kDefaultSharedBytes = 48 << 10, kMostSharedBytes = 227 << 10;

struct Handles {
  std::map<std::uintptr_t, Event> events;
  std::uintptr_t next_event = 1;
  std::map<const void*, std::size_t> shared_bytes;  // kernels that asked for more than 48 KiB
  cudaError_t last_error = cudaSuccess;
};

Handles& handles() {
  static Handles instance;
  return instance;
}

struct Lock {
  std::lock_guard<std::recursive_mutex> guard{runtime_mutex()};
};

cudaError_t fail(cudaError_t error) {
  handles().last_error = error;
  return error;
}

cudaError_t misuse(cudaError_t error, const std::string& text) {
  Finding finding;
  finding.kind = Kind::kBadCall;
  finding.text = text;
  report(std::move(finding));
  return fail(error);
}

// What a call returns that did its part: an error of the kernels before it, if there was one.
cudaError_t result() {
  return sticky_error() ? static_cast<cudaError_t>(sticky_error()) : cudaSuccess;
}

StreamId id_of(cudaStream_t stream) {
  const auto id = reinterpret_cast<std::uintptr_t>(stream);
  return id == 0 ? kDefaultStream : static_cast<StreamId>(id);
}

bool is_stream(cudaStream_t stream) {
  return stream_exists(id_of(stream));
}

cudaError_t no_stream(const char* call, cudaStream_t stream) {
  return misuse(cudaErrorInvalidResourceHandle, std::string(call) + ": stream " +
                                                    std::to_string(id_of(stream)) +
                                                    " does not exist or was destroyed");
}

Event* event_of(cudaEvent_t event) {
  const auto found = handles().events.find(reinterpret_cast<std::uintptr_t>(event));
  return found == handles().events.end() ? nullptr : &found->second;
}

cudaError_t no_event(const char* call) {
  return misuse(cudaErrorInvalidResourceHandle,
                std::string(call) + ": the event does not exist or was destroyed");
}

std::uintptr_t address_of(const void* data) {
  return reinterpret_cast<std::uintptr_t>(data);
}

bool in_arena(const void* data) {
  return Memory::instance().contains(address_of(data));
}
bool on_device(const void* data) {
  return Memory::instance().is_device(address_of(data));
}
bool is_pinned(const void* data) {
  return Memory::instance().is_pinned(address_of(data));
}

// Frees at the stream's point: whatever used the memory has to be before it.
void free_now(Allocation& allocation, const Operation& operation) {
  for (const auto& [stream, use] : allocation.last_use) {
    if (ordered(use, operation)) continue;
    Finding finding;
    finding.kind = Kind::kNotOrdered;
    finding.text = operation_name(operation.id) + " frees " +
                   Memory::instance().describe(allocation.begin) + ", which " +
                   operation_name(use) + " uses: no event orders the free after it";
    report(std::move(finding));
  }
  allocation.freed_by = operation.id;
  Memory::instance().retire(allocation);
}

// One or more rows that are copied together.
struct Copy {
  void* to;
  std::size_t to_pitch;
  const void* from;
  std::size_t from_pitch;
  std::size_t width, height;
};

void run_copy(const Copy& copy, const Operation& operation) {
  Memory& memory = Memory::instance();
  const DeviceAccess access;
  for (std::size_t row = 0; row < copy.height; ++row) {
    const auto from = address_of(copy.from) + row * copy.from_pitch;
    const auto to = address_of(copy.to) + row * copy.to_pitch;
    const bool from_arena = memory.contains(from), to_arena = memory.contains(to);
    if (from_arena && !observe_operation(from, copy.width, Touch::kRead, operation)) return;
    if (to_arena && !observe_operation(to, copy.width, Touch::kWrite, operation)) return;
    std::memcpy(reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from), copy.width);
    if (!to_arena) continue;
    // What nothing wrote stays so: a copy of a buffer need not know which part is in use.
    std::uint8_t* state = memory.state(to);
    for (std::size_t i = 0; i < copy.width; ++i) {
      const bool written = !from_arena || (memory.state(from)[i] & kWritten);
      state[i] = static_cast<std::uint8_t>(written ? state[i] | kWritten : state[i] & ~kWritten);
    }
  }
}

bool kind_fits(const Copy& copy, cudaMemcpyKind kind) {
  const bool from = on_device(copy.from), to = on_device(copy.to);
  switch (kind) {
    case cudaMemcpyHostToHost:
      return !from && !to;
    case cudaMemcpyHostToDevice:
      return !from && to;
    case cudaMemcpyDeviceToHost:
      return from && !to;
    case cudaMemcpyDeviceToDevice:
      return from && to;
    case cudaMemcpyDefault:
      return true;
  }
  return false;
}

// While a copy waits or runs, the host may not write its pinned source, nor touch its pinned
// destination, until it knows that the copy is over.
void guard_pinned(const Copy& copy, std::uint32_t operation) {
  Memory& memory = Memory::instance();
  const auto guard = [&](const void* data, bool reads_allowed) {
    if (!is_pinned(data) || copy.height != 1) return;
    memory.protect_pinned(address_of(data), copy.width, reads_allowed);
    when_known(operation, [data, width = copy.width] {
      Memory::instance().unprotect_pinned(address_of(data), width);
    });
  };
  guard(copy.from, true);
  guard(copy.to, false);
}

cudaError_t copy_async(const char* call, Copy copy, cudaMemcpyKind kind, cudaStream_t stream) {
  if (!is_stream(stream)) return no_stream(call, stream);
  if (copy.width > copy.from_pitch || copy.width > copy.to_pitch) {
    return misuse(cudaErrorInvalidValue, std::string(call) + ": rows are longer than their pitch");
  }
  if (copy.width == 0 || copy.height == 0) return result();
  if (!kind_fits(copy, kind)) {
    return misuse(cudaErrorInvalidValue,
                  std::string(call) + ": the direction is not that of the addresses");
  }
  const bool from_pageable = !in_arena(copy.from), to_pageable = !in_arena(copy.to);
  std::shared_ptr<std::vector<std::uint8_t>> staged;
  if (from_pageable) {
    // Pageable memory is read before the call returns.
    staged = std::make_shared<std::vector<std::uint8_t>>(copy.width * copy.height);
    for (std::size_t row = 0; row < copy.height; ++row) {
      std::memcpy(staged->data() + row * copy.width,
                  static_cast<const std::uint8_t*>(copy.from) + row * copy.from_pitch, copy.width);
    }
    copy.from = staged->data();
    copy.from_pitch = copy.width;
  }
  const std::uint32_t operation =
      enqueue(id_of(stream), call, [copy, staged](const Operation& now) {
        Memory& memory = Memory::instance();
        if (copy.height == 1 && is_pinned(copy.to)) {
          memory.unprotect_pinned(address_of(copy.to), copy.width);
        }
        run_copy(copy, now);
        if (copy.height == 1 && is_pinned(copy.to)) {
          memory.protect_pinned(address_of(copy.to), copy.width, false);
        }
      });
  guard_pinned(copy, operation);
  if (to_pageable) {
    // A copy to pageable memory returns when it is done: a hidden wait.
    count_host_synchronization();
    synchronize(id_of(stream));
  }
  return result();
}

cudaError_t allocate(void** data, std::size_t bytes, bool pinned, Allocation** made) {
  *data = nullptr;
  if (bytes == 0) return result();
  *made = Memory::instance().allocate(bytes, pinned);
  if (!*made) return fail(cudaErrorMemoryAllocation);
  *data = reinterpret_cast<void*>((*made)->begin);
  return result();
}

// The allocation that begins there and may be freed; null is a finding.
Allocation* freeable(const char* call, const void* data) {
  Allocation* a = in_arena(data) ? Memory::instance().find(address_of(data)) : nullptr;
  if (!a || a->begin != address_of(data)) {
    misuse(cudaErrorInvalidValue, std::string(call) + ": the address is no allocation");
    return nullptr;
  }
  if (a->free_queued) {
    misuse(cudaErrorInvalidValue,
           std::string(call) + ": " + Memory::instance().describe(a->begin) + " is freed twice");
    return nullptr;
  }
  a->free_queued = true;
  return a;
}

// Waits for everything, then runs f as an operation of its own.
template <typename F>
void run_alone(const char* call, F f) {
  synchronize_all();
  enqueue(kDefaultStream, call, f);
  synchronize_all();
}

}  // namespace

LiveObjects live_objects() {
  const Lock lock;
  synchronize_all();
  LiveObjects live;
  for (const auto& [begin, allocation] : Memory::instance().allocations()) {
    if (!allocation.free_queued) live.allocations.push_back(allocation.number);
  }
  live.streams = live_streams();
  live.events = handles().events.size();
  return live;
}

cudaError_t launch(const cudaLaunchConfig_t& config, const void* kernel,
                   std::shared_ptr<const void> arguments, std::size_t argument_bytes,
                   void (*call)(const void*), bool may_touch_host) {
  const Lock lock;
  if (!is_stream(config.stream)) return no_stream("a kernel's launch", config.stream);
  const dim3 &g = config.gridDim, &b = config.blockDim;
  const auto shared = handles().shared_bytes.find(kernel);
  const std::size_t most_shared =
      shared == handles().shared_bytes.end() ? kDefaultSharedBytes : shared->second;
  if (g.x == 0 || g.y == 0 || g.z == 0 || b.x == 0 || b.y == 0 || b.z == 0 || g.x > 0x7FFFFFFF ||
      g.y > 65535 || g.z > 65535 || b.z > 64 || std::size_t{b.x} * b.y * b.z > kMaxThreads ||
      config.dynamicSmemBytes > most_shared) {
    return fail(cudaErrorInvalidConfiguration);
  }
  bool cooperative = false;
  for (unsigned i = 0; i < config.numAttrs; ++i) {
    if (config.attrs[i].id != cudaLaunchAttributeCooperative) {
      return fail(cudaErrorInvalidConfiguration);
    }
    cooperative = config.attrs[i].val.cooperative != 0;
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
  launch.cooperative = cooperative;
  launch.may_touch_host = may_touch_host;
  enqueue(id_of(config.stream), "kernel " + function_name(kernel),
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
  if (value < 0 || static_cast<std::size_t>(value) > kMostSharedBytes) {
    return fail(cudaErrorInvalidValue);
  }
  handles().shared_bytes[kernel] = static_cast<std::size_t>(value);
  return cudaSuccess;
}

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
  *count = 1;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  const Lock lock;
  return device == 0 ? cudaSuccess : fail(cudaErrorInvalidDevice);
}

cudaError_t cudaDeviceSynchronize() {
  const Lock lock;
  count_host_synchronization();
  synchronize_all();
  return result();
}

cudaError_t cudaDeviceGetPCIBusId(char* id, int size, int) {
  std::snprintf(id, static_cast<std::size_t>(size), "0000:00:00.0");
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
      *value = 9;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = 0;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = static_cast<int>(kMostSharedBytes);
      break;
  }
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  const Lock lock;
  *total = kTotalMemory;
  *free = kTotalMemory - Memory::instance().live_bytes();
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
  return destroy_stream(id_of(stream)) ? result() : no_stream("cudaStreamDestroy", stream);
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const Lock lock;
  if (!is_stream(stream)) return no_stream("cudaStreamSynchronize", stream);
  count_host_synchronization();
  synchronize(id_of(stream));
  return result();
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
  const Lock lock;
  if (!is_stream(stream)) return no_stream("cudaStreamQuery", stream);
  if (!stream_is_idle(id_of(stream))) {
    make_progress();
    return cudaErrorNotReady;
  }
  synchronize(id_of(stream));
  return result();
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const Lock lock;
  if (!is_stream(stream)) return no_stream("cudaStreamWaitEvent", stream);
  if (!event_of(event)) return no_event("cudaStreamWaitEvent");
  wait_for_event(id_of(stream), *event_of(event));
  return result();
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, void (*function)(void*), void* data) {
  const Lock lock;
  if (!is_stream(stream)) return no_stream("cudaLaunchHostFunc", stream);
  enqueue(id_of(stream), "a host function", [=](const Operation&) { function(data); });
  return result();
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  const Lock lock;
  *event = reinterpret_cast<cudaEvent_t>(handles().next_event);
  handles().events[handles().next_event++];
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
  record_event(*event_of(event), id_of(stream));
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
  if (!event_of(begin)->recorded || !event_of(end)->recorded) return fail(cudaErrorInvalidValue);
  if (!*event_of(begin)->done || !*event_of(end)->done) return cudaErrorNotReady;
  *milliseconds = 0;
  return result();
}

cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int device) {
  *pool = reinterpret_cast<cudaMemPool_t>(std::uintptr_t{1});
  return device == 0 ? cudaSuccess : cudaErrorInvalidDevice;
}

cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) {
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** data, std::size_t bytes) {
  const Lock lock;
  Allocation* made = nullptr;
  return allocate(data, bytes, false, &made);
}

cudaError_t cudaFree(void* data) {
  const Lock lock;
  if (!data) return cudaSuccess;
  Allocation* a = freeable("cudaFree", data);
  if (!a) return cudaErrorInvalidValue;
  run_alone("cudaFree", [a](const Operation& operation) { free_now(*a, operation); });
  return result();
}

cudaError_t cudaMallocAsync(void** data, std::size_t bytes, cudaStream_t stream) {
  const Lock lock;
  if (!is_stream(stream)) return no_stream("cudaMallocAsync", stream);
  Allocation* made = nullptr;
  const cudaError_t error = allocate(data, bytes, false, &made);
  if (!made) return error;
  made->stream_ordered = true;
  made->made_by = enqueue(id_of(stream), "cudaMallocAsync", [](const Operation&) {});
  return error;
}

cudaError_t cudaFreeAsync(void* data, cudaStream_t stream) {
  const Lock lock;
  if (!is_stream(stream)) return no_stream("cudaFreeAsync", stream);
  Allocation* a = freeable("cudaFreeAsync", data);
  if (!a) return cudaErrorInvalidValue;
  enqueue(id_of(stream), "cudaFreeAsync", [a](const Operation& operation) {
    if (a->made_by && !ordered(a->made_by, operation)) {
      misuse(cudaErrorInvalidValue, "cudaFreeAsync: " + operation_name(operation.id) +
                                        " may free before " + operation_name(a->made_by));
    }
    free_now(*a, operation);
  });
  return result();
}

cudaError_t cudaMallocHost(void** data, std::size_t bytes) {
  const Lock lock;
  Allocation* made = nullptr;
  return allocate(data, bytes, true, &made);
}

cudaError_t cudaHostAlloc(void** data, std::size_t bytes, unsigned) {
  return cudaMallocHost(data, bytes);
}

cudaError_t cudaFreeHost(void* data) {
  const Lock lock;
  if (!data) return cudaSuccess;
  Allocation* a = freeable("cudaFreeHost", data);
  if (!a) return cudaErrorInvalidValue;
  run_alone("cudaFreeHost", [a](const Operation& operation) { free_now(*a, operation); });
  return result();
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  const Lock lock;
  return copy_async("cudaMemcpyAsync", {to, bytes, from, bytes, bytes, 1}, kind, stream);
}

cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  const Lock lock;
  const cudaError_t error =
      copy_async("cudaMemcpy", {to, bytes, from, bytes, bytes, 1}, kind, nullptr);
  if (error != cudaSuccess) return error;
  count_host_synchronization();
  synchronize(kDefaultStream);
  return result();
}

cudaError_t cudaMemcpy2DAsync(void* to, std::size_t to_pitch, const void* from,
                              std::size_t from_pitch, std::size_t width, std::size_t height,
                              cudaMemcpyKind kind, cudaStream_t stream) {
  const Lock lock;
  return copy_async("cudaMemcpy2DAsync", {to, to_pitch, from, from_pitch, width, height}, kind,
                    stream);
}

cudaError_t cudaMemsetAsync(void* data, int value, std::size_t bytes, cudaStream_t stream) {
  const Lock lock;
  if (!is_stream(stream)) return no_stream("cudaMemsetAsync", stream);
  if (bytes == 0) return result();
  if (!in_arena(data)) {
    return misuse(cudaErrorInvalidValue, "cudaMemsetAsync: the address is not the device's");
  }
  enqueue(id_of(stream), "cudaMemsetAsync", [=](const Operation& operation) {
    if (!observe_operation(address_of(data), bytes, Touch::kWrite, operation)) return;
    const DeviceAccess access;
    std::memset(data, value, bytes);
    std::memset(Memory::instance().state(address_of(data)), kAllocated | kWritten, bytes);
  });
  return result();
}

cudaError_t cudaMemset(void* data, int value, std::size_t bytes) {
  return cudaMemsetAsync(data, value, bytes, nullptr);
}

}  // extern "C"
