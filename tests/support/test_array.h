#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <utility>
#include <vector>

#include "serrate/buffer.h"
#include "serrate/device_span.h"

namespace serrate {

/// Values that a test reads and writes on the host and an op in the memory of its device: they are
/// in one of the two, where they were last asked for.
template <typename T>
class TestArray {
 public:
  TestArray() = default;
  explicit TestArray(std::int64_t size, T fill = {}) : host_(size, fill) {}
  TestArray(std::vector<T> values) : host_(std::move(values)) {}  // NOLINT: implicit
  TestArray(std::initializer_list<T> values) : host_(values) {}
  TestArray(const TestArray& other) : host_(other.host()) {}
  TestArray(TestArray&&) = default;
  TestArray& operator=(const TestArray& other) {
    if (this != &other) host() = other.host();
    return *this;
  }
  TestArray& operator=(TestArray&&) = default;

  /// For an op; the stream has to outlive the array, or its next use on the host.
  DeviceSpan<T> on(const Stream& stream) const {
    if (!stream_) {
      device_ = Buffer<T>(std::as_const(host_), stream);
      stream_ = &stream;
    }
    return device_.span();
  }
  std::vector<T>& host() const {
    if (stream_) {
      host_ = device_.to_host(*stream_);
      device_ = {};
      stream_ = nullptr;
    }
    return host_;
  }
  std::int64_t size() const { return stream_ ? device_.size() : std::ssize(host_); }
  T& operator[](std::int64_t i) const { return host()[i]; }

 private:
  mutable std::vector<T> host_;
  mutable Buffer<T> device_;
  mutable const Stream* stream_ = nullptr;
};

}  // namespace serrate
