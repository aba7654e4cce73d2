#pragma once

#include <cub/device/scratch.cuh>
#include <cuda/std/functional>

namespace cub {
namespace simulated {

// In pieces whose length is the schedule's, as thread blocks do: sums of floats differ from call to
// call. Their type is the input's, however wide the output.
template <typename In, typename Out, typename Op, typename T>
__global__ void scan(Scratch scratch, In in, Out out, std::int64_t size, Op op, T initial,
                     bool inclusive, bool with_initial, int piece) {
  spoil(scratch);
  std::vector<T> values;
  for (std::int64_t i = 0; i < size; ++i) values.push_back(static_cast<T>(in[i]));
  T before = initial;
  bool some = with_initial;
  for (std::int64_t begin = 0; begin < size; begin += piece) {
    const std::int64_t end = std::min<std::int64_t>(begin + piece, size);
    T sum = values[begin];
    if (!inclusive) out[begin] = before;
    if (inclusive) out[begin] = some ? static_cast<T>(op(before, sum)) : sum;
    for (std::int64_t i = begin + 1; i < end; ++i) {
      if (!inclusive) out[i] = static_cast<T>(op(before, sum));
      sum = static_cast<T>(op(sum, values[i]));
      if (inclusive) out[i] = some ? static_cast<T>(op(before, sum)) : sum;
    }
    before = some ? static_cast<T>(op(before, sum)) : sum;
    some = true;
  }
}

inline int scan_piece() {
  return 1 + coin() + 2 * coin() + 4 * coin() + 8 * coin();
}

template <typename In, typename Out, typename Op, typename Initial>
cudaError_t run_scan(const Call& call, In in, Out out, Op op, Initial initial, bool inclusive,
                     bool with_initial) {
  using T = Accumulator<Op, Initial, Value<In>>;
  bool in_place = false;
  if constexpr (std::is_pointer_v<In> && std::is_pointer_v<Out>) {
    in_place = static_cast<const void*>(in) == static_cast<const void*>(out);
  }
  return run(call, {in_place ? Argument{} : reads(in, call.size), writes(out, call.size)},
             scan<In, Out, Op, T>, in, out, call.size, op, static_cast<T>(initial), inclusive,
             with_initial, scan_piece());
}

}  // namespace simulated

struct DeviceScan {
#define SIMT_SUM(name, inclusive)                                                                 \
  template <typename In, typename Out, typename Size>                                             \
  static cudaError_t name(void* scratch, std::size_t& bytes, In in, Out out, Size size,           \
                          cudaStream_t stream = nullptr) {                                        \
    return simulated::run_scan(                                                                   \
        {"cub::DeviceScan::" #name, scratch, bytes, static_cast<std::int64_t>(size), stream}, in, \
        out, cuda::std::plus<>{}, simulated::Value<In>{}, inclusive, !inclusive);                 \
  }                                                                                               \
  template <typename Data, typename Size>                                                         \
  static cudaError_t name(void* scratch, std::size_t& bytes, Data data, Size size,                \
                          cudaStream_t stream = nullptr) {                                        \
    return simulated::run_scan(                                                                   \
        {"cub::DeviceScan::" #name, scratch, bytes, static_cast<std::int64_t>(size), stream},     \
        data, data, cuda::std::plus<>{}, simulated::Value<Data>{}, inclusive, !inclusive);        \
  }
  SIMT_SUM(ExclusiveSum, false)
  SIMT_SUM(InclusiveSum, true)
#undef SIMT_SUM
  template <typename In, typename Out, typename Op, typename Initial, typename Size>
  static cudaError_t ExclusiveScan(void* scratch, std::size_t& bytes, In in, Out out, Op op,
                                   Initial initial, Size size, cudaStream_t stream = nullptr) {
    return simulated::run_scan(
        {"cub::DeviceScan::ExclusiveScan", scratch, bytes, static_cast<std::int64_t>(size), stream},
        in, out, op, initial, false, true);
  }
  template <typename In, typename Out, typename Op, typename Size>
  static cudaError_t InclusiveScan(void* scratch, std::size_t& bytes, In in, Out out, Op op,
                                   Size size, cudaStream_t stream = nullptr) {
    return simulated::run_scan(
        {"cub::DeviceScan::InclusiveScan", scratch, bytes, static_cast<std::int64_t>(size), stream},
        in, out, op, simulated::Value<In>{}, true, false);
  }
};

}  // namespace cub
