#include "serrate/kernels/bag_offsets.h"

#include "kernels/cpu_only.h"

namespace serrate {

void offsets_from_lengths(std::span<const std::int64_t> lengths, std::span<std::int64_t> offsets,
                          const Stream& stream) {
  check(offsets.size() == lengths.size() + 1, "offsets must be one longer than lengths");
  dispatch_cpu_only(stream.device(), "offsets_from_lengths", [&](auto device) {
    offsets_from_lengths_on<device()>(lengths, offsets, stream);
  });
}

void mean_scales(std::span<const std::int64_t> offsets, std::span<float> scales,
                 const Stream& stream) {
  check(offsets.size() == scales.size() + 1, "offsets must be one longer than scales");
  dispatch_cpu_only(stream.device(), "mean_scales",
                    [&](auto device) { mean_scales_on<device()>(offsets, scales, stream); });
}

void bags_of_ids(std::span<const std::int64_t> offsets, std::span<std::int64_t> bags,
                 const Stream& stream) {
  check(!offsets.empty(), "offsets must be [num_bags + 1]");
  dispatch_cpu_only(stream.device(), "bags_of_ids",
                    [&](auto device) { bags_of_ids_on<device()>(offsets, bags, stream); });
}

}  // namespace serrate
