#pragma once

#include <cstdint>
#include <vector>

#include "tests/support/simt/instructions.h"

// What wgmma multiplies (PTX ISA 9.1, 9.7.15), and how tensor cores add up.
namespace simt {

/// Bits of a descriptor that are to be zero, the base offset among them: tiles begin where their
/// pattern does.
constexpr std::uint64_t kReservedDescriptorBits =
    ~(std::uint64_t{0x3FFF} | std::uint64_t{0x3FFF} << 16 | std::uint64_t{0x3FFF} << 32 |
      std::uint64_t{3} << 62);

/// What a product sums over.
unsigned depth_of(MmaType type);

/// An operand in shared memory.
struct Tile {
  MmaType type;
  bool by_rows = false;
  unsigned first_row = 0, rows = 0;
  std::uint64_t descriptor = 0;

  std::uintptr_t address(unsigned row, unsigned k) const;
  /// The pieces of 16 bytes that it lies in: each has elements that follow one another in k or,
  /// where it is by rows, in rows.
  std::vector<std::uintptr_t> pieces() const;
  double element(unsigned row, unsigned k) const;
};

/// A factor, and the exponent of its significand.
struct Factor {
  double value;
  int exponent;
};
Factor factor(double value);

/// c and the products a[k] b[k] as the tensor cores add them (measured by others on the hardware):
/// all are cut to `fraction` bits below the largest exponent, added, and cut again.
float fused_sum(float c, const Factor* a, const Factor* b, unsigned depth, int fraction);

}  // namespace simt
