// Elementwise, in one launch.
#include "serrate/kernels/round_to_bfloat16.h"

#include "kernels/cuda/fours.cuh"

namespace serrate {
namespace {

template <Access kAccess>
struct Round {
  const float* values;
  BFloat16* rounded;
  std::int64_t size;

  __device__ void operator()(std::int64_t, std::int64_t i) const {
    store_four<kAccess>(load_four<kAccess>(values, i, size), rounded, i, size);
  }
};

}  // namespace

template <>
void round_to_bfloat16_on<DeviceType::kCuda>(DeviceSpan<const float> values,
                                             DeviceSpan<BFloat16> rounded, const Stream& stream) {
  const auto size = static_cast<std::int64_t>(values.size());
  with_access(
      [&](auto access) {
        const Round<access()> round{values.device_data(), rounded.device_data(), size};
        launch_for_each_four(1, size, round, stream);
      },
      values, rounded);
}

}  // namespace serrate
