#include <algorithm>
#include <cstdint>

#include "kernels/matrix_batch_checks.h"
#include "kernels/sample_tasks.h"
#include "kernels/simd/targets.h"
#include "serrate/kernels/jagged_padded.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/jagged/cpu/padded.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/simd/output-inl.h"

HWY_BEFORE_NAMESPACE();
namespace serrate::HWY_NAMESPACE {

void copy_run(const MatrixView<const float>& from, float fill, const MatrixView<float>& to,
              std::int64_t begin, std::int64_t end, OutputPath path) {
  copy_resized(from, fill, to, begin, end, path);
  finish_rows(path);
}

}  // namespace serrate::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace serrate {
HWY_EXPORT(copy_run);

template <>
void copy_samples_on<DeviceType::kCpu>(const MatrixBatch<const float>& from_args, float fill,
                                       const MatrixBatch<float>& to_args, const Stream& stream) {
  const HostBatch<const float> from = host_view(from_args, stream);
  const HostBatch<float> to = host_view(to_args, stream);
  check_offsets(from, "the source of a jagged conversion");
  check_offsets(to, "the target of a jagged conversion");
  const OutputPath path = output_path(to);
  for_each_run(to, stream, [&](std::int64_t b, std::int64_t begin, std::int64_t end) {
    HWY_DYNAMIC_DISPATCH(copy_run)(from.sample(b), fill, to.sample(b), begin, end, path);
  });
}

}  // namespace serrate
#endif  // HWY_ONCE
