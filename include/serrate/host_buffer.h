#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <utility>

#include "serrate/buffer.h"
#include "serrate/device_span.h"
#include "serrate/stream.h"

namespace serrate {

/// Untyped host memory for copies from and to a device: pinned, where the device is a GPU.
void* allocate_host_bytes(std::size_t bytes, Device device);
void deallocate_host_bytes(void* data, Device device) noexcept;

/// Owned host memory for `size()` values of T that a device's streams copy from and to while the
/// host goes on: the only host memory that asynchronous copies touch. Not initialised. It has to
/// live, and what is copied may not be touched, until the stream has passed the copy.
template <typename T>
class HostBuffer {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  HostBuffer() = default;
  HostBuffer(std::int64_t size, Device device)
      : data_(static_cast<T*>(
            allocate_host_bytes(static_cast<std::size_t>(size) * sizeof(T), device))),
        size_(size),
        capacity_(size),
        device_(device) {}
  HostBuffer(HostBuffer&& other) noexcept { swap(other); }
  HostBuffer& operator=(HostBuffer&& other) noexcept {
    HostBuffer(std::move(other)).swap(*this);
    return *this;
  }
  HostBuffer(const HostBuffer&) = delete;
  HostBuffer& operator=(const HostBuffer&) = delete;
  ~HostBuffer() {
    if (data_) deallocate_host_bytes(data_, device_);
  }

  std::int64_t size() const { return size_; }
  std::int64_t capacity() const { return capacity_; }
  std::int64_t bytes() const { return capacity_ * static_cast<std::int64_t>(sizeof(T)); }
  Device device() const { return device_; }
  std::span<T> span() { return {data_, static_cast<std::size_t>(size_)}; }
  std::span<const T> span() const { return {data_, static_cast<std::size_t>(size_)}; }

  /// As Buffer::resize_discard. No copy may be on its way.
  std::span<T> resize_discard(std::int64_t size, Device device) {
    if (size > capacity_ || device != device_) {
      *this = HostBuffer();
      *this = HostBuffer(size + size / 4, device);
    }
    size_ = size;
    return span();
  }

 private:
  void swap(HostBuffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(capacity_, other.capacity_);
    std::swap(device_, other.device_);
  }

  T* data_ = nullptr;
  std::int64_t size_ = 0;
  std::int64_t capacity_ = 0;
  Device device_;
};

/// Queues a copy of to.size() values from `from`, from value `first` on, and returns.
template <typename T>
void copy_async(const HostBuffer<std::type_identity_t<T>>& from, std::int64_t first,
                DeviceSpan<T> to, const Stream& stream) {
  check(first >= 0 && first + std::ssize(to) <= from.size(), "copy_async: behind the host's end");
  copy_bytes(from.span().data() + first, to.device_data(), to.size_bytes(), stream);
}

/// The other way: what comes after it on the stream, and who waits for that, finds the values.
template <typename T>
void copy_async(DeviceSpan<const std::type_identity_t<T>> from, HostBuffer<T>& to,
                std::int64_t first, const Stream& stream) {
  check(first >= 0 && first + std::ssize(from) <= to.size(), "copy_async: behind the host's end");
  copy_bytes(from.device_data(), to.span().data() + first, from.size_bytes(), stream);
}

}  // namespace serrate
