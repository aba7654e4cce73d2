#pragma once

#include <cstdint>
#include <span>

#include "serrate/stream.h"

namespace serrate {

/// into[i] += term[i], in the memory of a device.
template <typename T>
struct Addition {
  T* into;
  const T* term;
};

/// The additions, each for elements [0, size), one after the other: sums whose order is given,
/// such as that of ranks, or of the nodes of a tree (sum_tree.h). T is float, double or
/// std::int64_t.
template <typename T>
void add_in_order(std::span<const Addition<T>> additions, std::int64_t size, const Stream& stream);

template <DeviceType D, typename T>
void add_in_order_on(std::span<const Addition<T>> additions, std::int64_t size,
                     const Stream& stream);

}  // namespace serrate
