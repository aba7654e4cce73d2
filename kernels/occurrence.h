#pragma once

#include <cstdint>
#include <span>

#include "serrate/kernels/embedding_update.h"

namespace serrate {

// An occurrence of a row in RowGroups::bags: which bag of which segment it stands in, and so which
// row of which d_output is its gradient.
constexpr int kBagBits = 40;

constexpr std::uint64_t pack_bag(std::int64_t segment, std::int64_t bag) {
  return static_cast<std::uint64_t>(segment) << kBagBits | static_cast<std::uint64_t>(bag);
}
constexpr std::int64_t segment_of(std::uint64_t packed) {
  return static_cast<std::int64_t>(packed >> kBagBits);
}
constexpr std::int64_t bag_of(std::uint64_t packed) {
  return static_cast<std::int64_t>(packed & ((std::uint64_t{1} << kBagBits) - 1));
}

}  // namespace serrate
