#pragma once

#include <cub/block/collective.cuh>
#include <cuda/std/functional>

namespace cub {

/// Only the first lane gets the result.
template <typename T, int kLanes = 32>
class WarpReduce {
 public:
  using TempStorage = simulated::Slots<T, kLanes>;

  explicit WarpReduce(TempStorage& storage) : storage_(storage) {}

  template <typename Op>
  T Reduce(T input, Op op, int valid, simt::Where where = simt::Where::current()) {
    const unsigned lane = simulated::thread_of_block() % 32;
    const unsigned first = lane / kLanes * kLanes;
    const unsigned mask = kLanes == 32 ? 0xFFFFFFFF : ((1u << kLanes % 32) - 1) << first;
    storage_.values()[lane - first] = input;
    simt::warp_operation(simt::WarpOperation::kSync, mask, {}, where);
    return lane == first ? simulated::fold(storage_.values(), valid, op)
                         : simulated::undefined<T>();
  }
  template <typename Op>
  T Reduce(T input, Op op, simt::Where where = simt::Where::current()) {
    return Reduce(input, op, kLanes, where);
  }
  T Sum(T input, simt::Where where = simt::Where::current()) {
    return Reduce(input, cuda::std::plus<>{}, kLanes, where);
  }
  T Sum(T input, int valid, simt::Where where = simt::Where::current()) {
    return Reduce(input, cuda::std::plus<>{}, valid, where);
  }

 private:
  TempStorage& storage_;
};

}  // namespace cub
