#pragma once

#include <cstddef>

#include "serrate/any_matrix.h"
#include "serrate/event.h"
#include "serrate/stream.h"

namespace serrate {

// What a backend does for Stream, Event, Buffer and HostBuffer; called through dispatch_device.
template <DeviceType D>
void* create_stream_on(Device device);
template <DeviceType D>
void destroy_stream_on(void* native) noexcept;
template <DeviceType D>
void synchronize_on(void* native);
template <DeviceType D>
void wait_for_event_on(void* native, void* event);
template <DeviceType D>
void* create_event_on(EventUse use);
template <DeviceType D>
void destroy_event_on(void* event) noexcept;
template <DeviceType D>
void record_event_on(void* event, void* native);
template <DeviceType D>
bool event_is_reached_on(void* event);
template <DeviceType D>
void synchronize_event_on(void* event);
template <DeviceType D>
double seconds_between_on(void* earlier, void* later);
template <DeviceType D>
void* allocate_on(std::size_t bytes, Device device, void* native);
template <DeviceType D>
void deallocate_on(void* data, std::size_t bytes, void* native) noexcept;
template <DeviceType D>
void* allocate_host_on(std::size_t bytes);
template <DeviceType D>
void deallocate_host_on(void* data) noexcept;
template <DeviceType D>
void copy_on(const void* from, void* to, std::size_t bytes, void* native);
template <DeviceType D>
void copy_matrix_on(const InputMatrix& from, const OutputMatrix& to, void* native);
template <DeviceType D>
void zero_on(void* data, std::size_t bytes, void* native);

}  // namespace serrate
