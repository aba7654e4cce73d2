#include "src/core/memory.h"

#include "serrate/buffer.h"
#include "serrate/host_buffer.h"
#include "src/core/dispatch.h"

namespace serrate {

void* allocate_bytes(std::size_t bytes, const Stream& stream) {
  if (bytes == 0) return nullptr;
  return dispatch_device(stream.device(), [&](auto d) {
    return allocate_on<d()>(bytes, stream.device(), stream.native());
  });
}

void deallocate_bytes(void* data, std::size_t bytes, Device device, void* native) noexcept {
  dispatch_release(device, [&](auto d) { deallocate_on<d()>(data, bytes, native); });
}

void* allocate_host_bytes(std::size_t bytes, Device device) {
  if (bytes == 0) return nullptr;
  return dispatch_device(device, [&](auto d) { return allocate_host_on<d()>(bytes); });
}

void deallocate_host_bytes(void* data, Device device) noexcept {
  dispatch_release(device, [&](auto d) { deallocate_host_on<d()>(data); });
}

void copy_bytes(const void* from, void* to, std::size_t bytes, const Stream& stream) {
  dispatch_device(stream.device(), [&](auto d) { copy_on<d()>(from, to, bytes, stream.native()); });
}

void copy_matrix(const InputMatrix& from, const OutputMatrix& to, const Stream& stream) {
  check(from.rows == to.rows && from.cols == to.cols && from.type == to.type,
        "copy_matrix needs matrices of one shape and type");
  dispatch_device(stream.device(), [&](auto d) { copy_matrix_on<d()>(from, to, stream.native()); });
}

void zero_bytes(void* data, std::size_t bytes, const Stream& stream) {
  dispatch_device(stream.device(), [&](auto d) { zero_on<d()>(data, bytes, stream.native()); });
}

}  // namespace serrate
