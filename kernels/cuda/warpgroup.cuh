#pragma once

#include <cuda_runtime.h>

#include <cstdint>

// What warps that do different work need (PTX ISA 9.1). tests/support/simt has a header of the same
// path for the simulated device.
namespace serrate {

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
/// elect.sync (9.7.13.16): true for one lane of the mask, the same one each time. All lanes of the
/// mask call it.
__device__ inline bool elect_one(unsigned mask = 0xFFFFFFFF) {
  std::uint32_t elected;
  asm volatile(
      "{\n"
      ".reg .pred elected;\n"
      "elect.sync _|elected, %1;\n"
      "selp.u32 %0, 1, 0, elected;\n"
      "}"
      : "=r"(elected)
      : "r"(mask));
  return elected != 0;
}

/// griddepcontrol (9.7.13.13), for launches with programmatic stream serialization: the next kernel
/// may begin; and, in that kernel, what this one wrote is there. Nothing for other launches.
__device__ inline void launch_dependent_grids() {
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}
__device__ inline void wait_for_prerequisite_grids() {
  asm volatile("griddepcontrol.wait;" ::: "memory");
}
#endif

#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
/// setmaxnreg (9.7.19.5): the registers of each thread of the warpgroup, of which all threads call
/// it. The kernel has __launch_bounds__: 65536 registers, divided by the threads, are what each
/// begins with (168 of 384 threads). Those that one warpgroup gives up another one may have; it
/// waits for them.
template <int kRegisters>
__device__ void lower_registers() {
  static_assert(24 <= kRegisters && kRegisters <= 256 && kRegisters % 8 == 0);
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ void raise_registers() {
  static_assert(24 <= kRegisters && kRegisters <= 256 && kRegisters % 8 == 0);
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
#endif

}  // namespace serrate
