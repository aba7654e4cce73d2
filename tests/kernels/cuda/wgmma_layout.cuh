#pragma once

// Matrices in the layouts that wgmma reads (PTX ISA 9.1, 9.7.15.5.1), written down from the manual.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels/cuda/wgmma.cuh"

namespace serrate {

inline constexpr unsigned kSteps = 2;  // products that add to one d

inline unsigned bytes_of(WgmmaType type) {
  return type == WgmmaType::kTf32 ? 4 : type == WgmmaType::kE4m3 ? 1 : 2;
}

// A small integer in the type's bits: a sign, an exponent, the highest bits of a mantissa.
inline std::uint32_t bits_of(WgmmaType type, int value) {
  if (type == WgmmaType::kTf32) {
    return std::bit_cast<std::uint32_t>(static_cast<float>(value)) | 0x1FFF;  // which do not count
  }
  if (type == WgmmaType::kBf16) {
    return std::bit_cast<std::uint32_t>(static_cast<float>(value)) >> 16;
  }
  if (value == 0) return 0;
  const int mantissa_bits = type == WgmmaType::kF16 ? 10 : 3;
  const int bias = type == WgmmaType::kF16 ? 15 : 7;
  const int exponent = std::ilogb(value);
  const auto mantissa =
      static_cast<std::uint32_t>(std::ldexp(std::abs(value), mantissa_bits - exponent)) &
      ((1u << mantissa_bits) - 1);
  const std::uint32_t sign = value < 0 ? (type == WgmmaType::kF16 ? 0x8000u : 0x80u) : 0;
  return sign | static_cast<std::uint32_t>(exponent + bias) << mantissa_bits | mantissa;
}

// 5.5.7: chunks of 16 bytes change places within 32, 64 or 128 bytes, by the number of their row
// of 128 bytes.
inline unsigned swizzled_byte(unsigned byte, unsigned span) {
  const unsigned moves = byte / 128 % 8 & (span / 16 - 1);
  return span == 0 ? byte : (byte / 16 ^ moves) * 16 + byte % 16;
}

inline unsigned span_of(WgmmaSwizzle swizzle) {
  return swizzle == WgmmaSwizzle::kNone      ? 0
         : swizzle == WgmmaSwizzle::k32Bytes ? 32
         : swizzle == WgmmaSwizzle::k64Bytes ? 64
                                             : 128;
}

// A matrix of rows x depth small integers as a tile, in the canonical layouts of 9.7.15.5.1.
struct Layout {
  WgmmaType type;
  WgmmaMajor major;
  WgmmaSwizzle swizzle;
  unsigned rows;

  unsigned depth() const { return kSteps * 32 / bytes_of(type); }  // of all products
  unsigned span() const { return span_of(swizzle); }
  unsigned byte(unsigned row, unsigned k) const {
    const unsigned e = bytes_of(type), w = span();
    if (major == WgmmaMajor::kDepth && w > 0) {
      // Panels of w bytes of k, in which a row is w bytes.
      return swizzled_byte(k * e / w * rows * w + row * w + k * e % w, w);
    }
    if (major == WgmmaMajor::kDepth) {
      // Core matrices, 8 rows of 16 bytes, one below the other; then the next 16 bytes of k.
      return k * e / 16 * rows * 16 + row * 16 + k * e % 16;
    }
    if (w > 0) {
      // Panels of w bytes of rows, in which a k is w bytes.
      return swizzled_byte(row * e / w * depth() * w + k * w + row * e % w, w);
    }
    // Core matrices, 8 k of 16 bytes; then the next 8 k; then the next 16 bytes of rows.
    return row * e / 16 * depth() * 16 + k * 16 + row * e % 16;
  }
  WgmmaTile tile() const {
    const unsigned w = span();
    if (major == WgmmaMajor::kDepth) {
      return w > 0 ? WgmmaTile{16, 8 * w, swizzle} : WgmmaTile{rows * 16, 128, swizzle};
    }
    return w > 0 ? WgmmaTile{depth() * w, 8 * w, swizzle} : WgmmaTile{128, depth() * 16, swizzle};
  }
  // Bytes from the first product's part to the second's.
  unsigned step() const {
    const unsigned w = span();
    if (major == WgmmaMajor::kDepth) return w == 0 ? 2 * rows * 16 : w == 32 ? rows * 32 : 32;
    return w == 0 ? 2 * 128 : 16 * w;
  }
  unsigned bytes() const {
    const unsigned row = major == WgmmaMajor::kDepth ? std::max(span(), kSteps * 32) : kSteps * 32;
    return (rows * row + 1023) / 1024 * 1024;
  }

  template <typename Value>
  std::vector<std::uint32_t> words(const Value& value) const {
    std::vector<std::uint32_t> result(bytes() / 4);
    for (unsigned row = 0; row < rows; ++row) {
      for (unsigned k = 0; k < depth(); ++k) {
        const unsigned at = byte(row, k);
        result[at / 4] |= bits_of(type, value(row, k)) << at % 4 * 8;
      }
    }
    return result;
  }
};

}  // namespace serrate
