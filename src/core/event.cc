#include "serrate/event.h"

#include <utility>

#include "src/core/dispatch.h"
#include "src/core/memory.h"

namespace serrate {

Event::Event(Device device, EventUse use) : device_(device), use_(use) {
  native_ = dispatch_device(device, [&](auto d) { return create_event_on<d()>(use); });
}

Event::~Event() {
  if (native_) dispatch_release(device_, [&](auto d) { destroy_event_on<d()>(native_); });
}

Event::Event(Event&& other) noexcept
    : device_(other.device_), use_(other.use_), native_(std::exchange(other.native_, nullptr)) {}

Event& Event::operator=(Event&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(use_, other.use_);
  std::swap(native_, other.native_);
  return *this;
}

void Event::record(const Stream& stream) {
  check(stream.device() == device_, "an event is recorded on streams of its own device");
  dispatch_device(device_, [&](auto d) { record_event_on<d()>(native_, stream.native()); });
}

bool Event::is_reached() const {
  return dispatch_device(device_, [&](auto d) { return event_is_reached_on<d()>(native_); });
}

void Event::synchronize() const {
  dispatch_device(device_, [&](auto d) { synchronize_event_on<d()>(native_); });
}

double Event::seconds_since(const Event& earlier) const {
  check(use_ == EventUse::kTime && earlier.use_ == EventUse::kTime,
        "only events that were made for it take the time");
  check(device_ == earlier.device_, "time is taken between events of one device");
  for (const Event* event : {&earlier, this}) {
    if (!event->is_reached()) event->synchronize();
  }
  return dispatch_device(device_,
                         [&](auto d) { return seconds_between_on<d()>(earlier.native_, native_); });
}

}  // namespace serrate
