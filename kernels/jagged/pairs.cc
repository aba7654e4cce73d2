#include "serrate/kernels/jagged_pairs.h"

#include "src/core/dispatch.h"

namespace serrate {

void pair_offsets(DeviceSpan<const std::int64_t> row_offsets,
                  DeviceSpan<const std::int64_t> col_offsets, DeviceSpan<std::int64_t> offsets,
                  const Stream& stream) {
  check(!offsets.empty() && row_offsets.size() == offsets.size() &&
            col_offsets.size() == offsets.size(),
        "pair_offsets: all offsets must have batch_size + 1 entries");
  dispatch_device(stream.device(),
                  [&](auto d) { pair_offsets_on<d()>(row_offsets, col_offsets, offsets, stream); });
}

void jagged_self_subtraction(const JaggedSelfSubtraction& args, const Stream& stream) {
  check(!args.offsets.empty() && args.offsets.size() == args.z_offsets.size(),
        "jagged_self_subtraction: offsets and z_offsets must have batch_size + 1 entries");
  dispatch_device(stream.device(), [&](auto d) { jagged_self_subtraction_on<d()>(args, stream); });
}

void self_subtraction_offsets(DeviceSpan<const std::int64_t> offsets,
                              DeviceSpan<std::int64_t> z_offsets, const Stream& stream) {
  check(!offsets.empty() && offsets.size() == z_offsets.size(),
        "self_subtraction_offsets: both must have batch_size + 1 entries");
  dispatch_device(stream.device(),
                  [&](auto d) { self_subtraction_offsets_on<d()>(offsets, z_offsets, stream); });
}

}  // namespace serrate
