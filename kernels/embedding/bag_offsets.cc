#include "serrate/kernels/bag_offsets.h"

#include "kernels/cpu_only.h"

namespace serrate {

void mean_scales(std::span<const MeanScales> segments, const Stream& stream) {
  for (const MeanScales& s : segments) {
    check(s.offsets.size() == s.scales.size() + 1, "offsets must be one longer than scales");
  }
  dispatch_cpu_only(stream.device(), "mean_scales",
                    [&](auto device) { mean_scales_on<device()>(segments, stream); });
}

void bags_of_ids(std::span<const BagsOfIds> segments, const Stream& stream) {
  for (const BagsOfIds& s : segments) check(!s.offsets.empty(), "offsets must be [num_bags + 1]");
  dispatch_cpu_only(stream.device(), "bags_of_ids",
                    [&](auto device) { bags_of_ids_on<device()>(segments, stream); });
}

}  // namespace serrate
