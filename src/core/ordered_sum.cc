#include "src/core/ordered_sum.h"

#include "src/core/dispatch.h"

namespace serrate {

template <typename T>
void add_in_order(std::span<const Addition<T>> additions, std::int64_t size, const Stream& stream) {
  if (additions.empty() || size == 0) return;
  dispatch_device(stream.device(), [&](auto d) { add_in_order_on<d()>(additions, size, stream); });
}

template void add_in_order(std::span<const Addition<float>>, std::int64_t, const Stream&);
template void add_in_order(std::span<const Addition<double>>, std::int64_t, const Stream&);
template void add_in_order(std::span<const Addition<std::int64_t>>, std::int64_t, const Stream&);

}  // namespace serrate
