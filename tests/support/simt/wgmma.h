#pragma once

#include <cstdint>

#include "tests/support/simt/instructions.h"

namespace simt {

struct Block;
struct Thread;

// wgmma (PTX ISA 9.1, 9.7.15). Each warp computes its 16 rows by itself; the four of a warpgroup
// have to issue the same products in the same order.

struct WgmmaProduct {
  MmaType type = MmaType::kBf16;
  int cols = 0;
  bool a_by_rows = false, b_by_rows = false;  // in shared memory: MN-major
  bool adds = false;
  std::uint64_t a = 0, b = 0;  // descriptors
  friend bool operator==(const WgmmaProduct&, const WgmmaProduct&) = default;
};

/// d and a are the registers of the thread; a is null when the operand is in shared memory.
void issue_product(const WgmmaProduct& product, float* d, const std::uint32_t* a,
                   const Where& where);
void fence_products(const Where& where);
void commit_products(const Where& where);
void wait_for_products(unsigned pending, const Where& where);

/// An access to the stack of the thread: products that are under way own some of it.
void touch_registers(Thread& thread, std::uintptr_t address, std::size_t bytes, Touch touch,
                     std::uintptr_t code);
/// Products that nobody waited for when the block ends, and warps that issued other ones.
void report_products_left_behind(Block& block);

}  // namespace simt
