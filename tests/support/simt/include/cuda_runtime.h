#pragma once

// CUDA C++ for the host's compiler: what nvcc knows by itself, and kernel launches.

#include <cuda_runtime_api.h>
#include <math.h>

#include <bit>
#include <cstring>
#include <functional>
#include <memory>
#include <source_location>
#include <tuple>
#include <type_traits>
#include <utility>

#include "tests/support/simt/grid.h"

inline const simt::Dim& threadIdx = simt_indices.thread;
inline const simt::Dim& blockIdx = simt_indices.block;
inline const simt::Dim& blockDim = simt_indices.block_dim;
inline const simt::Dim& gridDim = simt_indices.grid_dim;
constexpr int warpSize = 32;

struct alignas(8) float2 {
  float x, y;
};
struct float3 {
  float x, y, z;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(16) double2 {
  double x, y;
};
inline float2 make_float2(float x, float y) {
  return {x, y};
}
inline float4 make_float4(float x, float y, float z, float w) {
  return {x, y, z, w};
}
inline int4 make_int4(int x, int y, int z, int w) {
  return {x, y, z, w};
}
inline uint2 make_uint2(unsigned x, unsigned y) {
  return {x, y};
}
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
  return {x, y, z, w};
}

// Launches.

namespace simt {
/// `call` runs the kernel with the arguments that follow it in `arguments`.
cudaError_t launch(const cudaLaunchConfig_t& config, const void* kernel,
                   std::shared_ptr<const void> arguments, std::size_t argument_bytes,
                   void (*call)(const void*), bool may_touch_host);

template <typename... Parameters, typename... Arguments>
cudaError_t launch_kernel(const cudaLaunchConfig_t& config, bool may_touch_host,
                          void (*kernel)(Parameters...), Arguments&&... arguments) {
  struct Call {
    void (*kernel)(Parameters...);
    std::tuple<std::remove_cv_t<Parameters>...> arguments;
  };
  return launch(
      config, reinterpret_cast<const void*>(kernel),
      std::make_shared<const Call>(Call{kernel, {std::forward<Arguments>(arguments)...}}),
      sizeof(Call),
      [](const void* data) {
        const Call& call = *static_cast<const Call*>(data);
        std::apply(call.kernel, call.arguments);
      },
      may_touch_host);
}
}  // namespace simt

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  return simt::launch_kernel(*config, false, kernel, std::forward<Arguments>(arguments)...);
}
extern "C++" {
cudaError_t simt_set_attribute(const void* kernel, cudaFuncAttribute attribute, int value);
cudaError_t simt_get_attributes(cudaFuncAttributes* attributes, const void* kernel);
template <typename Kernel>
cudaError_t cudaFuncSetAttribute(Kernel* kernel, cudaFuncAttribute attribute, int value) {
  return simt_set_attribute(reinterpret_cast<const void*>(kernel), attribute, value);
}
template <typename Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, Kernel* kernel) {
  return simt_get_attributes(attributes, reinterpret_cast<const void*>(kernel));
}
}

// Barriers and fences.

#define SIMT_HERE simt::Where where = simt::Where::current()

inline void __syncthreads(SIMT_HERE) {
  simt::sync_block(simt::BarrierVote::kNone, 0, where);
}
inline int __syncthreads_count(int predicate, SIMT_HERE) {
  return simt::sync_block(simt::BarrierVote::kCount, predicate, where);
}
inline int __syncthreads_and(int predicate, SIMT_HERE) {
  return simt::sync_block(simt::BarrierVote::kAnd, predicate, where);
}
inline int __syncthreads_or(int predicate, SIMT_HERE) {
  return simt::sync_block(simt::BarrierVote::kOr, predicate, where);
}
inline void __threadfence() {
  simt::fence();
}
inline void __threadfence_block() {
  simt::fence();
}
inline void __nanosleep(unsigned, SIMT_HERE) {
  simt::yield(where);
}

// Warp operations.

inline void __syncwarp(unsigned mask = 0xFFFFFFFF, SIMT_HERE) {
  simt::warp_operation(simt::WarpOperation::kSync, mask, {}, where);
}
inline unsigned __activemask() {
  return simt::active_lanes();
}
inline int __all_sync(unsigned mask, int predicate, SIMT_HERE) {
  return static_cast<int>(
      simt::warp_operation(simt::WarpOperation::kAll, mask, {.value = predicate != 0}, where));
}
inline int __any_sync(unsigned mask, int predicate, SIMT_HERE) {
  return static_cast<int>(
      simt::warp_operation(simt::WarpOperation::kAny, mask, {.value = predicate != 0}, where));
}
inline unsigned __ballot_sync(unsigned mask, int predicate, SIMT_HERE) {
  return static_cast<unsigned>(
      simt::warp_operation(simt::WarpOperation::kBallot, mask, {.value = predicate != 0}, where));
}

namespace simt {
template <typename T>
std::uint64_t to_bits(T value) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  return bits;
}
template <typename T>
T from_bits(std::uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
template <typename T>
T shuffle(WarpOperation operation, unsigned mask, T value, int lane_argument, int width,
          const Where& where) {
  return from_bits<T>(warp_operation(operation, mask,
                                     {.value = to_bits(value),
                                      .lane = lane_argument,
                                      .width = width,
                                      .bytes = static_cast<int>(sizeof(T))},
                                     where));
}
}  // namespace simt

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, SIMT_HERE) {
  return simt::shuffle(simt::WarpOperation::kShuffle, mask, value, source, width, where);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, SIMT_HERE) {
  return simt::shuffle(simt::WarpOperation::kShuffleUp, mask, value, static_cast<int>(delta), width,
                       where);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, SIMT_HERE) {
  return simt::shuffle(simt::WarpOperation::kShuffleDown, mask, value, static_cast<int>(delta),
                       width, where);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, SIMT_HERE) {
  return simt::shuffle(simt::WarpOperation::kShuffleXor, mask, value, lanes, width, where);
}
template <typename T>
unsigned __match_any_sync(unsigned mask, T value, SIMT_HERE) {
  return static_cast<unsigned>(simt::warp_operation(
      simt::WarpOperation::kMatchAny, mask,
      {.value = simt::to_bits(value), .bytes = static_cast<int>(sizeof(T))}, where));
}
template <typename T>
unsigned __match_all_sync(unsigned mask, T value, int* all_equal, SIMT_HERE) {
  const auto result = static_cast<unsigned>(simt::warp_operation(
      simt::WarpOperation::kMatchAll, mask,
      {.value = simt::to_bits(value), .bytes = static_cast<int>(sizeof(T))}, where));
  *all_equal = result != 0;
  return result;
}
#define SIMT_REDUCE(name, operation)                                                             \
  inline int name(unsigned mask, int value, SIMT_HERE) {                                         \
    return static_cast<int>(                                                                     \
        simt::warp_operation(simt::WarpOperation::operation, mask,                               \
                             {.value = static_cast<std::uint32_t>(value), .width = -1}, where)); \
  }                                                                                              \
  inline unsigned name(unsigned mask, unsigned value, SIMT_HERE) {                               \
    return static_cast<unsigned>(                                                                \
        simt::warp_operation(simt::WarpOperation::operation, mask, {.value = value}, where));    \
  }
SIMT_REDUCE(__reduce_add_sync, kReduceAdd)
SIMT_REDUCE(__reduce_min_sync, kReduceMin)
SIMT_REDUCE(__reduce_max_sync, kReduceMax)
SIMT_REDUCE(__reduce_and_sync, kReduceAnd)
SIMT_REDUCE(__reduce_or_sync, kReduceOr)
SIMT_REDUCE(__reduce_xor_sync, kReduceXor)
#undef SIMT_REDUCE
#undef SIMT_HERE

// Atomics, relaxed as CUDA's.

namespace simt {
enum class AtomicOperation { kAdd, kMin, kMax, kExchange, kCompareAndSwap, kAnd, kOr, kXor };
/// Defined for int, unsigned, unsigned long long, float and double.
template <typename T>
T atomic_update(T* address, AtomicOperation operation, T value, T expected);
}  // namespace simt

#define SIMT_ATOMIC(name, operation)                                                      \
  template <typename T>                                                                   \
  __forceinline__ T name(T* address, std::type_identity_t<T> value) {                     \
    return simt::atomic_update<T>(address, simt::AtomicOperation::operation, value, T{}); \
  }
SIMT_ATOMIC(atomicAdd, kAdd)
SIMT_ATOMIC(atomicMin, kMin)
SIMT_ATOMIC(atomicMax, kMax)
SIMT_ATOMIC(atomicExch, kExchange)
SIMT_ATOMIC(atomicAnd, kAnd)
SIMT_ATOMIC(atomicOr, kOr)
SIMT_ATOMIC(atomicXor, kXor)
#undef SIMT_ATOMIC
template <typename T>
__forceinline__ T atomicCAS(T* address, std::type_identity_t<T> expected,
                            std::type_identity_t<T> value) {
  return simt::atomic_update<T>(address, simt::AtomicOperation::kCompareAndSwap, value, expected);
}

// Arithmetic. The fast forms are the exact ones here: tests allow for the device's error.

inline int __popc(unsigned value) {
  return std::popcount(value);
}
inline int __popcll(unsigned long long value) {
  return std::popcount(value);
}
inline int __ffs(int value) {
  return __builtin_ffs(value);
}
inline int __clz(int value) {
  return std::countl_zero(static_cast<unsigned>(value));
}
inline int __clzll(long long value) {
  return std::countl_zero(static_cast<unsigned long long>(value));
}
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
  const unsigned long long bytes = static_cast<unsigned long long>(y) << 32 | x;
  unsigned result = 0;
  for (unsigned i = 0; i < 4; ++i) {
    const auto byte = static_cast<unsigned>(bytes >> 8 * (selector >> 4 * i & 7) & 255);
    result |= byte << 8 * i;
  }
  return result;
}
inline float __fmul_rn(float x, float y) {
  return x * y;
}
inline float __expf(float x) {
  return expf(x);
}
inline float __logf(float x) {
  return logf(x);
}
inline float __fdividef(float x, float y) {
  return x / y;
}
inline float rsqrtf(float x) {
  return 1.0f / sqrtf(x);
}
inline unsigned __float_as_uint(float value) {
  return std::bit_cast<unsigned>(value);
}
inline float __uint_as_float(unsigned value) {
  return std::bit_cast<float>(value);
}
inline int __float_as_int(float value) {
  return std::bit_cast<int>(value);
}
inline float __int_as_float(int value) {
  return std::bit_cast<float>(value);
}
template <typename T>
__forceinline__ T __ldg(const T* address) {
  return *address;
}
