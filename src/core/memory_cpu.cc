#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <new>

#include "src/core/memory.h"

namespace serrate {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kCacheLine = 64;
constexpr std::size_t kHugePage = std::size_t{2} << 20;

std::size_t round_up(std::size_t bytes, std::size_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

}  // namespace

template <>
void* create_stream_on<DeviceType::kCpu>(Device) {
  return nullptr;
}

template <>
void destroy_stream_on<DeviceType::kCpu>(void*) noexcept {}

template <>
void synchronize_on<DeviceType::kCpu>(void*) {}

// An event is the time at which it was recorded: all work before that is done.
template <>
void wait_for_event_on<DeviceType::kCpu>(void*, void*) {}

template <>
void* create_event_on<DeviceType::kCpu>(EventUse) {
  return new Clock::time_point();
}

template <>
void destroy_event_on<DeviceType::kCpu>(void* event) noexcept {
  delete static_cast<Clock::time_point*>(event);
}

template <>
void record_event_on<DeviceType::kCpu>(void* event, void*) {
  *static_cast<Clock::time_point*>(event) = Clock::now();
}

template <>
bool event_is_reached_on<DeviceType::kCpu>(void*) {
  return true;
}

template <>
void synchronize_event_on<DeviceType::kCpu>(void*) {}

template <>
double seconds_between_on<DeviceType::kCpu>(void* earlier, void* later) {
  return std::chrono::duration<double>(*static_cast<Clock::time_point*>(later) -
                                       *static_cast<Clock::time_point*>(earlier))
      .count();
}

// Random rows of a table touch a page each: with huge pages the TLB covers 512 times as much.
template <>
void* allocate_on<DeviceType::kCpu>(std::size_t bytes, Device, void*) {
  const std::size_t unit = bytes >= 2 * kHugePage ? kHugePage : kCacheLine;
  void* data = std::aligned_alloc(unit, round_up(bytes, unit));
  if (!data) throw std::bad_alloc();
  if (unit == kHugePage) madvise(data, round_up(bytes, unit), MADV_HUGEPAGE);
  return data;
}

template <>
void deallocate_on<DeviceType::kCpu>(void* data, std::size_t, void*) noexcept {
  std::free(data);
}

template <>
void* allocate_host_on<DeviceType::kCpu>(std::size_t bytes) {
  return allocate_on<DeviceType::kCpu>(bytes, Device::cpu(), nullptr);
}

template <>
void deallocate_host_on<DeviceType::kCpu>(void* data) noexcept {
  std::free(data);
}

template <>
void copy_on<DeviceType::kCpu>(const void* from, void* to, std::size_t bytes, void*) {
  if (bytes > 0) std::memcpy(to, from, bytes);
}

template <>
void copy_matrix_on<DeviceType::kCpu>(const InputMatrix& from, const OutputMatrix& to, void*) {
  const auto* source = static_cast<const std::byte*>(from.device_data());
  auto* target = static_cast<std::byte*>(to.device_data());
  const std::int64_t size = size_of(from.type);
  for (std::int64_t r = 0; r < from.rows; ++r) {
    std::copy_n(source + r * from.stride * size, from.cols * size, target + r * to.stride * size);
  }
}

template <>
void zero_on<DeviceType::kCpu>(void* data, std::size_t bytes, void*) {
  if (bytes > 0) std::memset(data, 0, bytes);
}

}  // namespace serrate
