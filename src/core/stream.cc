#include "serrate/stream.h"

#include <utility>

#include "serrate/buffer.h"
#include "src/core/dispatch.h"
#include "src/core/memory.h"

namespace serrate {

std::string to_string(Device device) {
  return device.type == DeviceType::kCpu ? "cpu" : "cuda:" + std::to_string(device.index);
}

Stream::Stream(Device device, int num_threads) : device_(device), num_threads_(num_threads) {
  check(num_threads >= 1, "a stream needs at least one thread");
  native_ = dispatch_device(device, [&](auto d) { return create_stream_on<d()>(device); });
}

Stream::~Stream() {
  if (native_) {
    dispatch_device(device_, [&](auto d) { destroy_stream_on<d()>(native_); });
  }
}

Stream::Stream(Stream&& other) noexcept
    : device_(other.device_),
      num_threads_(other.num_threads_),
      native_(std::exchange(other.native_, nullptr)) {}

Stream& Stream::operator=(Stream&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(num_threads_, other.num_threads_);
  std::swap(native_, other.native_);
  return *this;
}

void Stream::synchronize() const {
  dispatch_device(device_, [&](auto d) { synchronize_on<d()>(native_); });
}

void* allocate_bytes(std::size_t bytes, const Stream& stream) {
  if (bytes == 0) return nullptr;
  return dispatch_device(stream.device(), [&](auto d) {
    return allocate_on<d()>(bytes, stream.device(), stream.native());
  });
}

void deallocate_bytes(void* data, std::size_t bytes, Device device, void* native) noexcept {
  dispatch_device(device, [&](auto d) { deallocate_on<d()>(data, bytes, native); });
}

void copy_bytes(const void* from, void* to, std::size_t bytes, const Stream& stream) {
  dispatch_device(stream.device(), [&](auto d) { copy_on<d()>(from, to, bytes, stream.native()); });
}

void copy_matrix(DeviceMatrix<const float> from, DeviceMatrix<float> to, const Stream& stream) {
  check(from.rows == to.rows && from.cols == to.cols, "copy_matrix needs matrices of one shape");
  dispatch_device(stream.device(), [&](auto d) { copy_matrix_on<d()>(from, to, stream.native()); });
}

void zero_bytes(void* data, std::size_t bytes, const Stream& stream) {
  dispatch_device(stream.device(), [&](auto d) { zero_on<d()>(data, bytes, stream.native()); });
}

}  // namespace serrate
