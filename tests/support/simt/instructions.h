#pragma once

#include <cstdint>

#include "tests/support/simt/grid.h"
#include "tests/support/simt/observe.h"

namespace simt {

struct Fragments {
  std::uint32_t* registers;
  int matrices;
  bool transposed;
};
/// ldmatrix: each lane says where a row lies.
void load_matrices(Fragments fragments, const void* row, const Where& where);

enum class MmaType { kBf16, kF16, kTf32, kE4m3 };
/// Elements in a register.
constexpr unsigned elements_of(MmaType type) {
  return type == MmaType::kTf32 ? 1 : type == MmaType::kE4m3 ? 4 : 2;
}
/// Element i of a fragment, counted from the low bits of its first register.
double element_of(MmaType type, const std::uint32_t* registers, unsigned i);
/// Where element i of lane l lies in the 16 rows of operand a of an mma of 32 bytes depth.
struct RowAndDepth {
  unsigned row, depth;
};
RowAndDepth element_of_a(MmaType type, unsigned lane, unsigned i);
/// d += a b on a warp: exact products and sums, cut to float at the end, as the tensor cores cut
/// (toward zero).
void multiply_matrices(MmaType type, float* d, const std::uint32_t* a, const std::uint32_t* b,
                       const Where& where);

/// cp.async of 16 bytes: takes effect when it is waited for, and not before.
void copy_async(void* shared, const void* global, const Where& where);
void commit_copies();
void wait_for_copies(unsigned pending);

}  // namespace simt
