#include "serrate/stream.h"

#include <utility>

#include "serrate/event.h"
#include "src/core/dispatch.h"
#include "src/core/memory.h"

namespace serrate {

std::string to_string(Device device) {
  return device.type == DeviceType::kCpu ? "cpu" : "cuda:" + std::to_string(device.index);
}

Stream::Stream(Device device, int num_threads, void* native, Ownership ownership)
    : device_(device), num_threads_(num_threads), native_(native), ownership_(ownership) {}

Stream::Stream(Device device, int num_threads) : device_(device), num_threads_(num_threads) {
  check(num_threads >= 1, "a stream needs at least one thread");
  native_ = dispatch_device(device, [&](auto d) { return create_stream_on<d()>(device); });
}

Stream Stream::wrap(void* cuda_stream, Device device) {
  check(device.type == DeviceType::kCuda, "Stream::wrap is for a cudaStream_t of a CUDA device");
  dispatch_device(device, [](auto) {});
  return {device, 1, cuda_stream, Ownership::kWrapped};
}

Stream::~Stream() {
  attached_.clear();
  if (native_ && ownership_ == Ownership::kOwned) {
    dispatch_release(device_, [&](auto d) { destroy_stream_on<d()>(native_); });
  }
}

Stream::Stream(Stream&& other) noexcept : Stream(Device::cpu(), 1, nullptr, Ownership::kWrapped) {
  swap(other);
}

Stream& Stream::operator=(Stream&& other) noexcept {
  Stream(std::move(other)).swap(*this);
  return *this;
}

void Stream::swap(Stream& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(num_threads_, other.num_threads_);
  std::swap(native_, other.native_);
  std::swap(ownership_, other.ownership_);
  std::swap(attached_, other.attached_);
}

void Stream::synchronize() const {
  dispatch_device(device_, [&](auto d) { synchronize_on<d()>(native_); });
}

void Stream::wait_for(const Event& event) const {
  check(event.device().type == device_.type, "a stream waits for events of its own kind of device");
  dispatch_device(device_, [&](auto d) { wait_for_event_on<d()>(native_, event.native()); });
}

void Stream::wait_for(const Stream& other) const {
  Event reached(other.device());
  reached.record(other);
  wait_for(reached);
}

void* Stream::find_attached(const void* type) const {
  for (const auto& [of_type, object] : attached_) {
    if (of_type == type) return object.get();
  }
  return nullptr;
}

void* Stream::attach(const void* type, Attached object) const {
  return attached_.emplace_back(type, std::move(object)).second.get();
}

}  // namespace serrate
