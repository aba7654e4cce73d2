#pragma once

#include <memory>
#include <string>
#include <vector>

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

class Event;

/// A queue of work on one device. Kernels, copies and collectives take the stream they are ordered
/// on; nothing uses a stream that it was not given. On the CPU work is done when the call returns,
/// by at most `num_threads` OpenMP threads; no result depends on their number. A stream is used by
/// one host thread at a time, and outlives the memory that was allocated on it.
class Stream {
 public:
  /// A queue of its own.
  explicit Stream(Device device = Device::cpu(), int num_threads = 1);
  /// The queue of a caller who owns it and keeps it: a cudaStream_t, on a CUDA device.
  static Stream wrap(void* cuda_stream, Device device);
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
  /// What is queued from now on starts after what was before the event when it was recorded.
  void wait_for(const Event& event) const;
  /// The same after what is queued on `other` so far.
  void wait_for(const Stream& other) const;

  /// What a library needs for this stream, such as a handle of cuBLAS with its workspace: made by
  /// T(stream) when it is first asked for, destroyed before the stream. T may keep native() and
  /// device(), not the stream, which moves.
  template <typename T>
  T& attached() const {
    if (void* found = find_attached(&kTypeTag<T>)) return *static_cast<T*>(found);
    return *static_cast<T*>(
        attach(&kTypeTag<T>, {new T(*this), [](void* object) { delete static_cast<T*>(object); }}));
  }

 private:
  using Attached = std::unique_ptr<void, void (*)(void*)>;
  enum class Ownership { kOwned, kWrapped };
  template <typename T>
  static constexpr char kTypeTag = 0;

  Stream(Device device, int num_threads, void* native, Ownership ownership);
  void swap(Stream& other) noexcept;
  void* find_attached(const void* type) const;
  void* attach(const void* type, Attached object) const;

  Device device_;
  int num_threads_;
  void* native_ = nullptr;
  Ownership ownership_ = Ownership::kOwned;
  mutable std::vector<std::pair<const void*, Attached>> attached_;  // by type
};

}  // namespace serrate
