#include <cstdint>
#include <limits>
#include <string>

#include "src/core/cuda_check.h"
#include "src/core/cuda_device_scope.h"
#include "src/core/memory.h"

namespace serrate {
namespace {

cudaStream_t cuda_stream(void* native) {
  return static_cast<cudaStream_t>(native);
}

cudaEvent_t cuda_event(void* event) {
  return static_cast<cudaEvent_t>(event);
}

// By default the pool gives freed memory back to the driver at every synchronisation; a training
// loop wants it again in the next step.
void keep_freed_memory(Device device) {
  cudaMemPool_t pool = nullptr;
  std::uint64_t all = std::numeric_limits<std::uint64_t>::max();
  cuda_check(cudaDeviceGetDefaultMemPool(&pool, device.index));
  cuda_check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &all));
}

Error lacks_memory(std::size_t bytes, Device device) {
  cudaGetLastError();  // so that the next call does not report this error again
  std::size_t free = 0, total = 0;
  cuda_check(cudaMemGetInfo(&free, &total));
  return Error("cuda:" + std::to_string(device.index) + ": " + std::to_string(bytes) +
               " bytes of device memory cannot be allocated (" + std::to_string(free) + " of " +
               std::to_string(total) +
               " are free): use smaller batches, more GPUs or a smaller model");
}

}  // namespace

CudaDeviceScope::CudaDeviceScope(Device device) : device_(device.index) {
  cuda_check(cudaGetDevice(&previous_));
  if (previous_ != device_) cuda_check(cudaSetDevice(device_));
}

CudaDeviceScope::~CudaDeviceScope() {
  if (previous_ != device_) cudaSetDevice(previous_);
}

template <>
void* create_stream_on<DeviceType::kCuda>(Device device) {
  keep_freed_memory(device);
  cudaStream_t stream = nullptr;
  cuda_check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return stream;
}

// Work that is still queued is done before the stream's resources go.
template <>
void destroy_stream_on<DeviceType::kCuda>(void* native) noexcept {
  cudaStreamDestroy(cuda_stream(native));
}

template <>
void synchronize_on<DeviceType::kCuda>(void* native) {
  cuda_check(cudaStreamSynchronize(cuda_stream(native)));
}

template <>
void wait_for_event_on<DeviceType::kCuda>(void* native, void* event) {
  cuda_check(cudaStreamWaitEvent(cuda_stream(native), cuda_event(event), 0));
}

template <>
void* create_event_on<DeviceType::kCuda>(EventUse use) {
  cudaEvent_t event = nullptr;
  cuda_check(cudaEventCreateWithFlags(
      &event, use == EventUse::kTime ? cudaEventDefault : cudaEventDisableTiming));
  return event;
}

template <>
void destroy_event_on<DeviceType::kCuda>(void* event) noexcept {
  cudaEventDestroy(cuda_event(event));
}

template <>
void record_event_on<DeviceType::kCuda>(void* event, void* native) {
  cuda_check(cudaEventRecord(cuda_event(event), cuda_stream(native)));
}

template <>
bool event_is_reached_on<DeviceType::kCuda>(void* event) {
  const cudaError_t status = cudaEventQuery(cuda_event(event));
  if (status != cudaErrorNotReady) cuda_check(status);
  return status == cudaSuccess;
}

template <>
void synchronize_event_on<DeviceType::kCuda>(void* event) {
  cuda_check(cudaEventSynchronize(cuda_event(event)));
}

template <>
double seconds_between_on<DeviceType::kCuda>(void* earlier, void* later) {
  float milliseconds = 0;
  cuda_check(cudaEventElapsedTime(&milliseconds, cuda_event(earlier), cuda_event(later)));
  return milliseconds / 1e3;
}

template <>
void* allocate_on<DeviceType::kCuda>(std::size_t bytes, Device device, void* native) {
  void* data = nullptr;
  const cudaError_t status = cudaMallocAsync(&data, bytes, cuda_stream(native));
  if (status == cudaErrorMemoryAllocation) throw lacks_memory(bytes, device);
  cuda_check(status);
  return data;
}

template <>
void deallocate_on<DeviceType::kCuda>(void* data, std::size_t, void* native) noexcept {
  cudaFreeAsync(data, cuda_stream(native));
}

template <>
void* allocate_host_on<DeviceType::kCuda>(std::size_t bytes) {
  void* data = nullptr;
  cuda_check(cudaMallocHost(&data, bytes));
  return data;
}

template <>
void deallocate_host_on<DeviceType::kCuda>(void* data) noexcept {
  cudaFreeHost(data);
}

// Pageable host memory is read before the call returns, so the caller may free it; pinned memory
// has to stay until the stream has passed the copy.
template <>
void copy_on<DeviceType::kCuda>(const void* from, void* to, std::size_t bytes, void* native) {
  if (bytes == 0) return;
  cuda_check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, cuda_stream(native)));
}

template <>
void copy_matrix_on<DeviceType::kCuda>(const InputMatrix& from, const OutputMatrix& to,
                                       void* native) {
  if (from.rows == 0 || from.cols == 0) return;
  const auto bytes = [&](std::int64_t values) {
    return static_cast<std::size_t>(values * size_of(from.type));
  };
  cuda_check(cudaMemcpy2DAsync(
      to.device_data(), bytes(to.stride), from.device_data(), bytes(from.stride), bytes(from.cols),
      static_cast<std::size_t>(from.rows), cudaMemcpyDefault, cuda_stream(native)));
}

template <>
void zero_on<DeviceType::kCuda>(void* data, std::size_t bytes, void* native) {
  if (bytes > 0) cuda_check(cudaMemsetAsync(data, 0, bytes, cuda_stream(native)));
}

}  // namespace serrate
