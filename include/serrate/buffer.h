#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "serrate/any_matrix.h"
#include "serrate/device_span.h"
#include "serrate/error.h"
#include "serrate/stream.h"

namespace serrate {

/// Untyped memory of a device, in stream order. On the CPU, large blocks are aligned to 2 MiB and
/// asked to be on huge pages; all blocks are aligned to 64 bytes.
void* allocate_bytes(std::size_t bytes, const Stream& stream);
void deallocate_bytes(void* data, std::size_t bytes, Device device, void* native_stream) noexcept;
/// Either side may be host or device memory; a copy from the device to the host has to be
/// followed by stream.synchronize() before the host reads.
void copy_bytes(const void* from, void* to, std::size_t bytes, const Stream& stream);
void zero_bytes(void* data, std::size_t bytes, const Stream& stream);
/// Between matrices of the same shape and type.
void copy_matrix(const InputMatrix& from, const OutputMatrix& to, const Stream& stream);

template <typename T>
void copy_to_host(DeviceSpan<const std::type_identity_t<T>> from, std::span<T> to,
                  const Stream& stream);

/// Owned memory for `size()` values of T on the device of a stream; not initialised.
/// Freed in the order of the stream it was made on, which has to outlive it.
template <typename T>
class Buffer {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  Buffer() = default;
  Buffer(std::int64_t size, const Stream& stream)
      : data_(static_cast<T*>(allocate_bytes(static_cast<std::size_t>(size) * sizeof(T), stream))),
        size_(size),
        capacity_(size),
        device_(stream.device()),
        native_stream_(stream.native()) {}
  /// A copy of host values.
  Buffer(std::span<const T> host, const Stream& stream)
      : Buffer(static_cast<std::int64_t>(host.size()), stream) {
    copy_bytes(host.data(), data_, host.size_bytes(), stream);
  }
  static Buffer zeros(std::int64_t size, const Stream& stream) {
    Buffer result(size, stream);
    zero_bytes(result.data_, static_cast<std::size_t>(size) * sizeof(T), stream);
    return result;
  }
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    Buffer(std::move(other)).swap(*this);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() {
    if (data_) {
      deallocate_bytes(data_, static_cast<std::size_t>(capacity_) * sizeof(T), device_,
                       native_stream_);
    }
  }

  /// As DeviceSpan::device_data().
  T* device_data() { return data_; }
  const T* device_data() const { return data_; }
  std::int64_t size() const { return size_; }
  std::int64_t capacity() const { return capacity_; }
  /// Bytes of the memory held: capacity() values.
  std::int64_t bytes() const { return capacity_ * static_cast<std::int64_t>(sizeof(T)); }
  Device device() const { return device_; }
  DeviceSpan<T> span() { return {data_, static_cast<std::size_t>(size_)}; }
  DeviceSpan<const T> span() const { return {data_, static_cast<std::size_t>(size_)}; }
  /// The first rows * cols values as a matrix.
  DeviceMatrix<T> matrix(std::int64_t rows, std::int64_t cols) { return {data_, rows, cols}; }
  DeviceMatrix<const T> matrix(std::int64_t rows, std::int64_t cols) const {
    return {data_, rows, cols};
  }

  /// Makes the buffer `size` values long; what it held is lost. Memory only grows, by a quarter
  /// more than asked, so that the buffers of a training loop settle after a few steps.
  DeviceSpan<T> resize_discard(std::int64_t size, const Stream& stream) {
    if (size > capacity_) {
      *this = Buffer();
      *this = Buffer(size + size / 4, stream);
    }
    size_ = size;
    return span();
  }

  /// The values on the host; waits for the stream.
  std::vector<T> to_host(const Stream& stream) const {
    std::vector<T> host(static_cast<std::size_t>(size_));
    copy_to_host(span(), std::span<T>(host), stream);
    return host;
  }

 private:
  void swap(Buffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(capacity_, other.capacity_);
    std::swap(device_, other.device_);
    std::swap(native_stream_, other.native_stream_);
  }

  T* data_ = nullptr;
  std::int64_t size_ = 0;
  std::int64_t capacity_ = 0;
  Device device_;
  void* native_stream_ = nullptr;
};

/// Between spans of the same length on the stream's device.
template <typename T>
void copy(DeviceSpan<const std::type_identity_t<T>> from, DeviceSpan<T> to, const Stream& stream) {
  check(from.size() == to.size(), "copy needs spans of the same size");
  copy_bytes(from.device_data(), to.device_data(), to.size_bytes(), stream);
}

/// From the host, which may use `from` otherwise when the call returns.
template <typename T>
void copy_from_host(std::span<const std::type_identity_t<T>> from, DeviceSpan<T> to,
                    const Stream& stream) {
  check(from.size() == to.size(), "copy_from_host needs spans of the same size");
  copy_bytes(from.data(), to.device_data(), to.size_bytes(), stream);
}

/// To the host; waits for the stream.
template <typename T>
void copy_to_host(DeviceSpan<const std::type_identity_t<T>> from, std::span<T> to,
                  const Stream& stream) {
  check(from.size() == to.size(), "copy_to_host needs spans of the same size");
  copy_bytes(from.device_data(), to.data(), to.size_bytes(), stream);
  stream.synchronize();
}

/// The same with matrices, whose rows need not follow one another.
template <typename T>
void copy_from_host(const MatrixView<const std::type_identity_t<T>>& from,
                    const DeviceMatrix<T>& to, const Stream& stream) {
  copy_matrix(on_cpu(from), to, stream);
}
template <typename T>
void copy_to_host(const DeviceMatrix<const std::type_identity_t<T>>& from, const MatrixView<T>& to,
                  const Stream& stream) {
  copy_matrix(from, on_cpu(to), stream);
  stream.synchronize();
}

template <typename T>
void fill_zero(DeviceSpan<T> values, const Stream& stream) {
  zero_bytes(values.device_data(), values.size_bytes(), stream);
}

}  // namespace serrate
