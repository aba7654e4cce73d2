#pragma once

#include <cub/device/device_reduce.cuh>

namespace cub {

struct DeviceSegmentedReduce {
  template <typename In, typename Out, typename Begins, typename Ends, typename Op,
            typename Initial>
  static cudaError_t Reduce(void* scratch, std::size_t& bytes, In in, Out out,
                            std::int64_t segments, Begins begins, Ends ends, Op op, Initial initial,
                            cudaStream_t stream = nullptr) {
    return simulated::run_segments(
        {"cub::DeviceSegmentedReduce::Reduce", scratch, bytes, segments, stream}, in, out, begins,
        ends, op, initial);
  }
  template <typename In, typename Out, typename Begins, typename Ends>
  static cudaError_t Sum(void* scratch, std::size_t& bytes, In in, Out out, std::int64_t segments,
                         Begins begins, Ends ends, cudaStream_t stream = nullptr) {
    return simulated::run_segments(
        {"cub::DeviceSegmentedReduce::Sum", scratch, bytes, segments, stream}, in, out, begins,
        ends, cuda::std::plus<>{}, simulated::Value<Out>{});
  }
  template <typename In, typename Out, typename Begins, typename Ends>
  static cudaError_t Max(void* scratch, std::size_t& bytes, In in, Out out, std::int64_t segments,
                         Begins begins, Ends ends, cudaStream_t stream = nullptr) {
    return simulated::run_segments(
        {"cub::DeviceSegmentedReduce::Max", scratch, bytes, segments, stream}, in, out, begins,
        ends, cuda::maximum<>{}, std::numeric_limits<simulated::Value<In>>::lowest());
  }
};

}  // namespace cub
