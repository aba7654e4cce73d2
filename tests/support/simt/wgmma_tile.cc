#include "tests/support/simt/wgmma_tile.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "tests/support/simt/block.h"
#include "tests/support/simt/number.h"
#include "tests/support/simt/tensor_map.h"

namespace simt {
namespace {

// The matrix descriptor, 9.7.15.5.1.2.2.
struct Descriptor {
  std::uintptr_t start;
  std::uint32_t leading, stride;
  unsigned span;  // bytes of the swizzle, or 0

  explicit Descriptor(std::uint64_t bits)
      : start(dynamic_shared_memory() + ((bits & 0x3FFF) << 4)),
        leading((bits >> 16 & 0x3FFF) << 4),
        stride((bits >> 32 & 0x3FFF) << 4),
        span(bits >> 62 == 0 ? 0 : 256u >> (bits >> 62)) {}
};

// The address of element (row of a or column of b, k) of `bytes` bytes: 9.7.15.5.1.
std::uintptr_t address_of(const Descriptor& at, bool by_rows, unsigned bytes, unsigned row,
                          unsigned k) {
  const unsigned row_byte = row * bytes, k_byte = k * bytes;
  if (by_rows) {
    if (at.span == 0) {
      return at.start + row_byte / 16 * at.stride + row_byte % 16 + k / 8 * at.leading + k % 8 * 16;
    }
    return swizzled(at.start + row_byte / at.span * at.leading + row_byte % at.span +
                        k / 8 * at.stride + k % 8 * at.span,
                    at.span);
  }
  if (at.span == 0) {
    return at.start + row / 8 * at.stride + row % 8 * 16 + k_byte / 16 * at.leading + k_byte % 16;
  }
  return swizzled(at.start + row / 8 * at.stride + row % 8 * at.span + k_byte, at.span);
}

int exponent_of(double value) {
  constexpr int kOfZero = -5000;
  return value == 0 ? kOfZero
                    : static_cast<int>(std::bit_cast<std::uint64_t>(value) >> 52 & 0x7FF) - 1023;
}

}  // namespace

unsigned depth_of(MmaType type) {
  return 8 * elements_of(type);
}

std::uintptr_t Tile::address(unsigned row, unsigned k) const {
  return address_of(Descriptor(descriptor), by_rows, 4 / elements_of(type), first_row + row, k);
}

std::vector<std::uintptr_t> Tile::pieces() const {
  const unsigned in_piece = 4 * elements_of(type);
  std::vector<std::uintptr_t> all;
  for (unsigned row = 0; row < rows; row += by_rows ? in_piece : 1) {
    for (unsigned k = 0; k < depth_of(type); k += by_rows ? 1 : in_piece) {
      all.push_back(address(row, k));
    }
  }
  return all;
}

double Tile::element(unsigned row, unsigned k) const {
  const std::uintptr_t at = address(row, k);
  std::uint32_t bits = 0;
  std::memcpy(&bits, reinterpret_cast<const void*>(at), 4 / elements_of(type));
  return element_of(type, &bits, 0);
}

Factor factor(double value) {
  return {value, exponent_of(value)};
}

float fused_sum(float c, const Factor* a, const Factor* b, unsigned depth, int fraction) {
  double terms[33];
  terms[depth] = c;
  int largest = exponent_of(c);
  double not_finite = 0 * c;
  for (unsigned k = 0; k < depth; ++k) {
    terms[k] = a[k].value * b[k].value;
    // The product of two significands is not normalised.
    largest = std::max(largest, a[k].exponent + b[k].exponent);
    not_finite += 0 * terms[k];
  }
  if (std::isnan(not_finite)) {
    const double* first = terms;
    while (std::isfinite(*first)) ++first;
    return static_cast<float>(c + *first);
  }
  if (largest < -1000) return 0;
  const double per_unit = power_of_two(fraction - largest);
  double sum = 0;
  for (unsigned k = 0; k <= depth; ++k) {
    sum += static_cast<double>(static_cast<std::int64_t>(terms[k] * per_unit));
  }
  sum *= power_of_two(largest - fraction);
  auto cut = static_cast<float>(sum);
  if (std::isfinite(cut) && std::abs(cut) > std::abs(sum)) cut = std::nextafterf(cut, 0.0f);
  if (fraction < 23) {
    cut = std::bit_cast<float>(std::bit_cast<std::uint32_t>(cut) & ~((1u << (23 - fraction)) - 1));
  }
  return cut;
}

}  // namespace simt
