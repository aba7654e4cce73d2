#pragma once

#include <cstddef>

#include "serrate/device_span.h"
#include "serrate/stream.h"

namespace serrate {

// What a backend does for Stream and Buffer; called through dispatch_device.
template <DeviceType D>
void* create_stream_on(Device device);
template <DeviceType D>
void destroy_stream_on(void* native) noexcept;
template <DeviceType D>
void synchronize_on(void* native);
template <DeviceType D>
void* allocate_on(std::size_t bytes, Device device, void* native);
template <DeviceType D>
void deallocate_on(void* data, std::size_t bytes, void* native) noexcept;
template <DeviceType D>
void copy_on(const void* from, void* to, std::size_t bytes, void* native);
template <DeviceType D>
void copy_matrix_on(DeviceMatrix<const float> from, DeviceMatrix<float> to, void* native);
template <DeviceType D>
void zero_on(void* data, std::size_t bytes, void* native);

}  // namespace serrate
