// The calls of cuda_runtime_api.h on memory: allocations and copies.
#include <cstring>
#include <memory>
#include <vector>

#include "tests/support/simt/memory.h"
#include "tests/support/simt/observe.h"
#include "tests/support/simt/runtime.h"

namespace simt {
namespace {

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
  if (on_device(copy.from) && !on_device(copy.to)) count_copy_to_host();
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
      enqueue(stream_id(stream), call, [copy, staged](const Operation& now) {
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
    synchronize(stream_id(stream));
  }
  return result();
}

cudaError_t allocate(void** data, std::size_t bytes, int device, Allocation** made) {
  *data = nullptr;
  if (bytes == 0) return result();
  *made = Memory::instance().allocate(bytes, device);
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
}  // namespace simt

using namespace simt;

extern "C" {

cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  const Lock lock;
  const Memory::Use& use = Memory::instance().use(current_device());
  *total = kTotalMemory;
  *free = kTotalMemory - (use.live - use.pool_used + use.pool_reserved);
  return cudaSuccess;
}

cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int device) {
  if (device < 0 || device >= num_devices()) return cudaErrorInvalidDevice;
  *pool = reinterpret_cast<cudaMemPool_t>(static_cast<std::uintptr_t>(device) + 1);
  return cudaSuccess;
}

cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) {
  return cudaSuccess;
}

cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void* value) {
  const Lock lock;
  const auto device = static_cast<int>(reinterpret_cast<std::uintptr_t>(pool) - 1);
  const Memory::Use& use = Memory::instance().use(device);
  if (attribute != cudaMemPoolAttrReservedMemCurrent && attribute != cudaMemPoolAttrUsedMemCurrent)
    return misuse(cudaErrorInvalidValue, "cudaMemPoolGetAttribute: not simulated");
  *static_cast<std::uint64_t*>(value) =
      attribute == cudaMemPoolAttrUsedMemCurrent ? use.pool_used : use.pool_reserved;
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** data, std::size_t bytes) {
  const Lock lock;
  Allocation* made = nullptr;
  return allocate(data, bytes, current_device(), &made);
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
  const cudaError_t error = allocate(data, bytes, device_of(stream_id(stream)), &made);
  if (!made) return error;
  Memory::instance().move_to_pool(*made);
  made->made_by = enqueue(stream_id(stream), "cudaMallocAsync", [](const Operation&) {});
  return error;
}

cudaError_t cudaFreeAsync(void* data, cudaStream_t stream) {
  const Lock lock;
  if (!is_stream(stream)) return no_stream("cudaFreeAsync", stream);
  Allocation* a = freeable("cudaFreeAsync", data);
  if (!a) return cudaErrorInvalidValue;
  enqueue(stream_id(stream), "cudaFreeAsync", [a](const Operation& operation) {
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
  *data = nullptr;
  if (bytes > 0) {
    *data = reinterpret_cast<void*>(Memory::instance().allocate_pinned(bytes)->begin);
  }
  return result();
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
  enqueue(stream_id(stream), "cudaMemsetAsync", [=](const Operation& operation) {
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
