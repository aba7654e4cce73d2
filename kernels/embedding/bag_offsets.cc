#include "serrate/kernels/bag_offsets.h"

#include "src/core/dispatch.h"

namespace serrate {

void mean_scales(std::span<const MeanScales> segments, const Stream& stream) {
  for (const MeanScales& s : segments) {
    check(s.offsets.size() == s.scales.size() + 1, "offsets must be one longer than scales");
  }
  dispatch_device(stream.device(),
                  [&](auto device) { mean_scales_on<device()>(segments, stream); });
}

void bags_of_ids(std::span<const BagsOfIds> segments, const Stream& stream) {
  for (const BagsOfIds& s : segments) check(!s.offsets.empty(), "offsets must be [num_bags + 1]");
  dispatch_device(stream.device(),
                  [&](auto device) { bags_of_ids_on<device()>(segments, stream); });
}

}  // namespace serrate
