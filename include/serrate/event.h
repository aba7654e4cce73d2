#pragma once

#include "serrate/stream.h"

namespace serrate {

/// What an event is for: one that takes the time costs its stream more.
enum class EventUse { kOrder, kTime };

/// A point in the work of a stream, owned: what other streams and the host may wait for. On the
/// CPU, whose work is done when it is queued, there is nothing to wait for.
class Event {
 public:
  explicit Event(Device device = Device::cpu(), EventUse use = EventUse::kOrder);
  ~Event();
  Event(Event&& other) noexcept;
  Event& operator=(Event&& other) noexcept;
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  Device device() const { return device_; }
  /// The cudaEvent_t, as void*, on a CUDA device.
  void* native() const { return native_; }

  /// From now on, the end of what is queued on `stream` so far. The stream is of the same device.
  void record(const Stream& stream);
  /// Whether that has been done; an event that nothing recorded has.
  bool is_reached() const;
  /// Waits until it is; reports the errors of the work before it.
  void synchronize() const;
  /// Seconds from `earlier` to this event; waits for both. Both are recorded and EventUse::kTime.
  double seconds_since(const Event& earlier) const;

 private:
  Device device_;
  EventUse use_;
  void* native_ = nullptr;
};

}  // namespace serrate
