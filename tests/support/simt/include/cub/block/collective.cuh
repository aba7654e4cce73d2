#pragma once

#include <cuda_runtime.h>

#include <cstring>
#include <cub/device/scratch.cuh>

// Collectives of a block or warp hand their values over in the temporary storage, where every
// access is seen: storage that is used again without a barrier between, or by two warps, is a race.
namespace cub::simulated {

template <typename T, int kSlots>
struct alignas(alignof(T)) Slots {
  unsigned char bytes[sizeof(T) * kSlots];
  T* values() { return reinterpret_cast<T*>(bytes); }
};

/// What a thread gets that the documentation promises nothing to: NaN, or -1.
template <typename T>
T undefined() {
  T value;
  std::memset(static_cast<void*>(&value), 0xFF, sizeof value);
  return value;
}

inline unsigned thread_of_block() {
  return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
}

/// Whether the block has the shape that the collective was made for.
void check_block(const char* name, int x, int y, int z, const simt::Where& where);

/// The first n values of the storage in some fixed order.
template <typename T, typename Op>
T fold(const T* values, int n, Op op) {
  T sum = values[0];
  for (int i = 1; i < n; ++i) sum = static_cast<T>(op(sum, values[i]));
  return sum;
}

}  // namespace cub::simulated
