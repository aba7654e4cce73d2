#pragma once

#include <cub/block/collective.cuh>
#include <cuda/functional>
#include <cuda/std/functional>

namespace cub {

enum BlockReduceAlgorithm {
  BLOCK_REDUCE_RAKING_COMMUTATIVE_ONLY,
  BLOCK_REDUCE_RAKING,
  BLOCK_REDUCE_WARP_REDUCTIONS,
};

/// Only thread 0 gets the result.
template <typename T, int kX, BlockReduceAlgorithm kAlgorithm = BLOCK_REDUCE_WARP_REDUCTIONS,
          int kY = 1, int kZ = 1>
class BlockReduce {
 public:
  using TempStorage = simulated::Slots<T, kX * kY * kZ>;

  explicit BlockReduce(TempStorage& storage) : storage_(storage) {}

  template <typename Op>
  T Reduce(T input, Op op, int valid, simt::Where where = simt::Where::current()) {
    simulated::check_block("cub::BlockReduce", kX, kY, kZ, where);
    const unsigned thread = simulated::thread_of_block();
    storage_.values()[thread] = input;
    simt::sync_block(simt::BarrierVote::kNone, 0, where);
    return thread == 0 ? simulated::fold(storage_.values(), valid, op) : simulated::undefined<T>();
  }
  template <typename Op>
  T Reduce(T input, Op op, simt::Where where = simt::Where::current()) {
    return Reduce(input, op, kX * kY * kZ, where);
  }
  T Sum(T input, simt::Where where = simt::Where::current()) {
    return Reduce(input, cuda::std::plus<>{}, kX * kY * kZ, where);
  }
  T Sum(T input, int valid, simt::Where where = simt::Where::current()) {
    return Reduce(input, cuda::std::plus<>{}, valid, where);
  }

 private:
  TempStorage& storage_;
};

}  // namespace cub
