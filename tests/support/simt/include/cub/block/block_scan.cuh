#pragma once

#include <cub/block/collective.cuh>
#include <cuda/std/functional>

namespace cub {

enum BlockScanAlgorithm {
  BLOCK_SCAN_RAKING,
  BLOCK_SCAN_RAKING_MEMOIZE,
  BLOCK_SCAN_WARP_SCANS,
};

template <typename T, int kX, BlockScanAlgorithm kAlgorithm = BLOCK_SCAN_RAKING, int kY = 1,
          int kZ = 1>
class BlockScan {
  static constexpr int kThreads = kX * kY * kZ;

 public:
  using TempStorage = simulated::Slots<T, kThreads + 1>;

  explicit BlockScan(TempStorage& storage) : storage_(storage) {}

  void InclusiveSum(T input, T& output, simt::Where where = simt::Where::current()) {
    T all;
    InclusiveSum(input, output, all, where);
  }
  void InclusiveSum(T input, T& output, T& all, simt::Where where = simt::Where::current()) {
    InclusiveScan(input, output, cuda::std::plus<>{}, all, where);
  }
  void ExclusiveSum(T input, T& output, simt::Where where = simt::Where::current()) {
    T all;
    ExclusiveSum(input, output, all, where);
  }
  void ExclusiveSum(T input, T& output, T& all, simt::Where where = simt::Where::current()) {
    ExclusiveScan(input, output, T{}, cuda::std::plus<>{}, all, where);
  }
  template <typename Op>
  void InclusiveScan(T input, T& output, Op op, simt::Where where = simt::Where::current()) {
    T all;
    InclusiveScan(input, output, op, all, where);
  }
  template <typename Op>
  void InclusiveScan(T input, T& output, Op op, T& all,
                     simt::Where where = simt::Where::current()) {
    begin(input, where);
    if (simulated::thread_of_block() == 0) {
      T* const values = storage_.values();
      T sum = values[0];
      for (int i = 1; i < kThreads; ++i) {
        const T next = static_cast<T>(op(sum, values[i]));
        values[i] = sum;  // one place further on: others than its writer read a slot
        sum = next;
      }
      values[kThreads] = sum;
    }
    end(output, all, where);
  }
  template <typename Op>
  void ExclusiveScan(T input, T& output, T initial, Op op,
                     simt::Where where = simt::Where::current()) {
    T all;
    ExclusiveScan(input, output, initial, op, all, where);
  }
  // `all` leaves the initial value out.
  template <typename Op>
  void ExclusiveScan(T input, T& output, T initial, Op op, T& all,
                     simt::Where where = simt::Where::current()) {
    T inclusive;
    InclusiveScan(input, inclusive, op, all, where);
    simt::sync_block(simt::BarrierVote::kNone, 0, where);
    const unsigned thread = simulated::thread_of_block();
    storage_.values()[thread + 1] = inclusive;
    simt::sync_block(simt::BarrierVote::kNone, 0, where);
    output = thread == 0 ? initial : static_cast<T>(op(initial, storage_.values()[thread]));
  }

 private:
  void begin(T input, const simt::Where& where) {
    simulated::check_block("cub::BlockScan", kX, kY, kZ, where);
    storage_.values()[simulated::thread_of_block()] = input;
    simt::sync_block(simt::BarrierVote::kNone, 0, where);
  }
  void end(T& output, T& all, const simt::Where& where) {
    simt::sync_block(simt::BarrierVote::kNone, 0, where);
    output = storage_.values()[simulated::thread_of_block() + 1];
    all = storage_.values()[kThreads];
  }

  TempStorage& storage_;
};

}  // namespace cub
