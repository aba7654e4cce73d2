#pragma once

#include <cub/device/scratch.cuh>
#include <cuda/functional>
#include <cuda/std/functional>
#include <limits>

namespace cub {
namespace simulated {

template <typename T, typename In, typename Op>
T combine_range(In in, std::int64_t begin, std::int64_t end, T initial, Op op) {
  std::vector<T> values;
  for (std::int64_t i = begin; i < end; ++i) values.push_back(static_cast<T>(in[i]));
  return combine(std::move(values), initial, op);
}

template <typename T, typename In, typename Out, typename Op>
__global__ void reduce(Scratch scratch, In in, Out out, std::int64_t size, Op op, T initial) {
  spoil(scratch);
  *out = combine_range<T>(in, 0, size, initial, op);
}

template <typename T, typename In, typename Out, typename Begins, typename Ends, typename Op>
__global__ void reduce_segments(Scratch scratch, In in, Out out, std::int64_t segments,
                                Begins begins, Ends ends, Op op, T initial) {
  spoil(scratch);
  for (std::int64_t s = 0; s < segments; ++s) {
    out[s] = combine_range<T>(in, static_cast<std::int64_t>(begins[s]),
                              static_cast<std::int64_t>(ends[s]), initial, op);
  }
}

template <typename T, typename Keys, typename Unique, typename Values, typename Sums, typename Runs,
          typename Op>
__global__ void reduce_by_key(Scratch scratch, Keys keys, Unique unique, Values values, Sums sums,
                              Runs runs, std::int64_t size, Op op) {
  spoil(scratch);
  std::int64_t run = 0;
  for (std::int64_t begin = 0, end = 0; begin < size; begin = end, ++run) {
    while (end < size && keys[end] == keys[begin]) ++end;
    unique[run] = keys[begin];
    sums[run] = combine_range<T>(values, begin + 1, end, static_cast<T>(values[begin]), op);
  }
  *runs = static_cast<std::remove_reference_t<decltype(*runs)>>(run);
}

template <typename In, typename Out, typename Op, typename Initial>
cudaError_t run_reduce(const Call& call, In in, Out out, Op op, Initial initial) {
  using T = Accumulator<Op, Initial, Value<In>>;
  return run(call, {reads(in, call.size), writes(out, 1)}, reduce<T, In, Out, Op>, in, out,
             call.size, op, static_cast<T>(initial));
}

template <typename In, typename Out, typename Begins, typename Ends, typename Op, typename Initial>
cudaError_t run_segments(const Call& call, In in, Out out, Begins begins, Ends ends, Op op,
                         Initial initial) {
  using T = Accumulator<Op, Initial, Value<In>>;
  return run(
      call,
      {reads(in, 0), writes(out, call.size), reads(begins, call.size), reads(ends, call.size)},
      reduce_segments<T, In, Out, Begins, Ends, Op>, in, out, call.size, begins, ends, op,
      static_cast<T>(initial));
}

}  // namespace simulated

struct DeviceReduce {
  template <typename In, typename Out, typename Op, typename Initial, typename Size>
  static cudaError_t Reduce(void* scratch, std::size_t& bytes, In in, Out out, Size size, Op op,
                            Initial initial, cudaStream_t stream = nullptr) {
    return simulated::run_reduce(
        {"cub::DeviceReduce::Reduce", scratch, bytes, static_cast<std::int64_t>(size), stream}, in,
        out, op, initial);
  }
  // Sums are of the output's type, extrema of the input's.
  template <typename In, typename Out, typename Size>
  static cudaError_t Sum(void* scratch, std::size_t& bytes, In in, Out out, Size size,
                         cudaStream_t stream = nullptr) {
    return simulated::run_reduce(
        {"cub::DeviceReduce::Sum", scratch, bytes, static_cast<std::int64_t>(size), stream}, in,
        out, cuda::std::plus<>{}, simulated::Value<Out>{});
  }
  template <typename In, typename Out, typename Size>
  static cudaError_t Max(void* scratch, std::size_t& bytes, In in, Out out, Size size,
                         cudaStream_t stream = nullptr) {
    return simulated::run_reduce(
        {"cub::DeviceReduce::Max", scratch, bytes, static_cast<std::int64_t>(size), stream}, in,
        out, cuda::maximum<>{}, std::numeric_limits<simulated::Value<In>>::lowest());
  }
  template <typename In, typename Out, typename Size>
  static cudaError_t Min(void* scratch, std::size_t& bytes, In in, Out out, Size size,
                         cudaStream_t stream = nullptr) {
    return simulated::run_reduce(
        {"cub::DeviceReduce::Min", scratch, bytes, static_cast<std::int64_t>(size), stream}, in,
        out, cuda::minimum<>{}, std::numeric_limits<simulated::Value<In>>::max());
  }
  template <typename Keys, typename Unique, typename Values, typename Sums, typename Runs,
            typename Op, typename Size>
  static cudaError_t ReduceByKey(void* scratch, std::size_t& bytes, Keys keys, Unique unique,
                                 Values values, Sums sums, Runs runs, Op op, Size size,
                                 cudaStream_t stream = nullptr) {
    using namespace simulated;
    using T = Accumulator<Op, Value<Values>, Value<Values>>;
    const auto n = static_cast<std::int64_t>(size);
    return run({"cub::DeviceReduce::ReduceByKey", scratch, bytes, n, stream},
               {reads(keys, n), reads(values, n), writes(unique, n ? 1 : 0),
                writes(sums, n ? 1 : 0), writes(runs, 1)},
               reduce_by_key<T, Keys, Unique, Values, Sums, Runs, Op>, keys, unique, values, sums,
               runs, n, op);
  }
};

}  // namespace cub
