#pragma once

#include <string>

namespace serrate {

enum class DeviceType { kCpu, kCuda };

/// Where memory lives and kernels run.
struct Device {
  DeviceType type = DeviceType::kCpu;
  int index = 0;

  static constexpr Device cpu() { return {}; }
  static constexpr Device cuda(int index) { return {DeviceType::kCuda, index}; }
  friend bool operator==(const Device&, const Device&) = default;
};

/// "cpu" or "cuda:0".
std::string to_string(Device device);

/// A queue of work on one device, owned. Kernels, copies and collectives take the stream they are
/// ordered on; nothing uses a stream that it was not given. On the CPU work is done when the call
/// returns, by at most `num_threads` OpenMP threads; no result depends on their number.
class Stream {
 public:
  explicit Stream(Device device = Device::cpu(), int num_threads = 1);
  ~Stream();
  Stream(Stream&& other) noexcept;
  Stream& operator=(Stream&& other) noexcept;
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  Device device() const { return device_; }
  int num_threads() const { return num_threads_; }
  /// The cudaStream_t, as void*; null on the CPU.
  void* native() const { return native_; }
  /// Waits until all work queued so far is done; reports its errors.
  void synchronize() const;

 private:
  Device device_;
  int num_threads_;
  void* native_ = nullptr;
};

}  // namespace serrate
