#pragma once

#include <cstddef>
#include <cstdint>

#include "serrate/buffer.h"
#include "src/core/cuda_check.h"

namespace serrate {

/// CUB's calls ask for their temporary memory in a first call, f(nullptr, bytes).
template <typename F>
void with_temporary_memory(const Stream& stream, F f) {
  std::size_t bytes = 0;
  cuda_check(f(nullptr, bytes));
  Buffer<std::uint8_t> memory(static_cast<std::int64_t>(bytes), stream);
  cuda_check(f(memory.device_data(), bytes));
}

}  // namespace serrate
