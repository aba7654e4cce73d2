#pragma once

// The simulated device's form of kernels/cuda/warpgroup.cuh, which says what they do.
#include <cuda_runtime.h>

#include "tests/support/simt/warpgroup.h"

namespace serrate {

#define SIMT_HERE simt::Where where = simt::Where::current()

inline bool elect_one(unsigned mask = 0xFFFFFFFF, SIMT_HERE) {
  return simt::warp_operation(simt::WarpOperation::kElect, mask, {}, where) != 0;
}

// The simulated device refuses launches with programmatic stream serialization.
inline void launch_dependent_grids() {}
inline void wait_for_prerequisite_grids() {}

template <int kRegisters>
void lower_registers(SIMT_HERE) {
  static_assert(24 <= kRegisters && kRegisters <= 256 && kRegisters % 8 == 0);
  simt::set_registers(simt::RegisterChange::kLower, kRegisters, where);
}
template <int kRegisters>
void raise_registers(SIMT_HERE) {
  static_assert(24 <= kRegisters && kRegisters <= 256 && kRegisters % 8 == 0);
  simt::set_registers(simt::RegisterChange::kRaise, kRegisters, where);
}

#undef SIMT_HERE

}  // namespace serrate
