#include "serrate/kernels/permute_bags.h"

#include "src/core/dispatch.h"

namespace serrate {
namespace {

void check_segments(std::span<const BagRows> segments) {
  for (const BagRows& s : segments) {
    check(std::ssize(s.bag_index) == s.rows.rows, "bag_index must have an entry per row");
    check(s.rows.cols == s.bags.cols, "rows and bags must have the same columns");
    check(s.bag_scale.empty() || std::ssize(s.bag_scale) == s.bags.rows,
          "bag_scale must have an entry per bag");
  }
}

}  // namespace

void scatter_bags(std::span<const BagRows> segments, const Stream& stream) {
  check_segments(segments);
  dispatch_device(stream.device(),
                  [&](auto device) { scatter_bags_on<device()>(segments, stream); });
}

void gather_bags(std::span<const BagRows> segments, const Stream& stream) {
  check_segments(segments);
  dispatch_device(stream.device(),
                  [&](auto device) { gather_bags_on<device()>(segments, stream); });
}

}  // namespace serrate
