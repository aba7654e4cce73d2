#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

#include "serrate/error.h"

namespace serrate {

/// a b c ...; Error (usage) when it is beyond 64 bits, that begins with `what`: "--epochs".
inline std::int64_t checked_product(std::string_view what,
                                    std::initializer_list<std::int64_t> factors) {
  std::int64_t product = 1;
  for (const std::int64_t factor : factors) {
    if (__builtin_mul_overflow(product, factor, &product)) {
      throw usage_error(std::string(what) + " is too large (the product is beyond 64 bits)");
    }
  }
  return product;
}

/// An amount of memory that no machine has, and of which several can be added: what larger ones are
/// predicted as.
constexpr std::int64_t kMostBytes = std::int64_t{1} << 60;

inline std::int64_t bytes_of(double bytes) {
  return static_cast<std::int64_t>(std::clamp(bytes + 0.5, 0.0, static_cast<double>(kMostBytes)));
}

inline std::int64_t sum_of_bytes(std::initializer_list<std::int64_t> terms) {
  std::int64_t sum = 0;
  for (const std::int64_t term : terms)
    sum = std::min(sum + std::min(term, kMostBytes), kMostBytes);
  return sum;
}

}  // namespace serrate
