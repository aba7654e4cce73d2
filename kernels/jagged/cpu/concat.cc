// A sequence's z is the rows of its x, then those of its y.
#include <algorithm>
#include <cstdint>

#include "kernels/matrix_batch_checks.h"
#include "kernels/sample_tasks.h"
#include "kernels/simd/targets.h"
#include "serrate/kernels/jagged_concat.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/jagged/cpu/concat.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/simd/output-inl.h"

HWY_BEFORE_NAMESPACE();
namespace serrate::HWY_NAMESPACE {

// f(rows of z, the same rows of the operand) for those rows [begin, end) of z that lie in an
// operand whose first row is z's row `first`.
template <typename Z, typename X, typename F>
HWY_INLINE void for_rows_in(const MatrixView<Z>& z, const MatrixView<X>& x, std::int64_t first,
                            std::int64_t begin, std::int64_t end, const F& f) {
  begin = std::max(begin, first);
  end = std::min(end, first + x.rows);
  if (begin < end) f(z.middle_rows(begin, end), x.middle_rows(begin - first, end - first));
}

void concat_run(const MatrixView<const float>& x, const MatrixView<const float>& y,
                const MatrixView<float>& z, std::int64_t begin, std::int64_t end, OutputPath path) {
  const auto copy = [=](const MatrixView<float>& to, const MatrixView<const float>& from)
                        HWY_ATTR { copy_rows(from, to, path); };
  for_rows_in(z, x, 0, begin, end, copy);
  for_rows_in(z, y, x.rows, begin, end, copy);
  finish_rows(path);
}

void split_run(const MatrixView<const float>& z, const MatrixView<float>& x,
               const MatrixView<float>& y, std::int64_t begin, std::int64_t end, OutputPath path) {
  const auto copy = [=](const MatrixView<const float>& from, const MatrixView<float>& to)
                        HWY_ATTR { copy_rows(from, to, path); };
  for_rows_in(z, x, 0, begin, end, copy);
  for_rows_in(z, y, x.rows, begin, end, copy);
  finish_rows(path);
}

}  // namespace serrate::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace serrate {
HWY_EXPORT(concat_run);
HWY_EXPORT(split_run);

namespace {

void check_samples_fit(const HostBatch<const float>& x, const HostBatch<const float>& y,
                       const HostBatch<const float>& z) {
  check_offsets(x, "x of jagged_concat");
  check_offsets(y, "y of jagged_concat");
  check_offsets(z, "z of jagged_concat");
  check_samples(
      z.batch_size, "jagged_concat: z must have as many rows as x and y together",
      [&](std::int64_t b) { return z.sample(b).rows == x.sample(b).rows + y.sample(b).rows; });
}

}  // namespace

template <>
void jagged_concat_on<DeviceType::kCpu>(const MatrixBatch<const float>& x_args,
                                        const MatrixBatch<const float>& y_args,
                                        const MatrixBatch<float>& z_args, const Stream& stream) {
  const HostBatch<const float> x = host_view(x_args, stream), y = host_view(y_args, stream);
  const HostBatch<float> z = host_view(z_args, stream);
  check_samples_fit(x, y, z);
  const OutputPath path = output_path(z);
  for_each_run(z, stream, [&](std::int64_t b, std::int64_t begin, std::int64_t end) {
    HWY_DYNAMIC_DISPATCH(concat_run)(x.sample(b), y.sample(b), z.sample(b), begin, end, path);
  });
}

template <>
void jagged_split_on<DeviceType::kCpu>(const MatrixBatch<const float>& z_args,
                                       const MatrixBatch<float>& x_args,
                                       const MatrixBatch<float>& y_args, const Stream& stream) {
  const HostBatch<const float> z = host_view(z_args, stream);
  const HostBatch<float> x = host_view(x_args, stream), y = host_view(y_args, stream);
  check_samples_fit(x, y, z);
  const OutputPath path = output_path(z);
  for_each_run(z, stream, [&](std::int64_t b, std::int64_t begin, std::int64_t end) {
    HWY_DYNAMIC_DISPATCH(split_run)(z.sample(b), x.sample(b), y.sample(b), begin, end, path);
  });
}

template <>
void jagged_concat_offsets_on<DeviceType::kCpu>(const MatrixBatch<const float>& x_args,
                                                const MatrixBatch<const float>& y_args,
                                                DeviceSpan<std::int64_t> offset_args,
                                                const Stream& stream) {
  const HostBatch<const float> x = host_view(x_args, stream), y = host_view(y_args, stream);
  const std::span<std::int64_t> offsets = host_view(offset_args, stream);
  offsets[0] = 0;
  for (std::int64_t b = 0; b + 1 < std::ssize(offsets); ++b) {
    offsets[b + 1] = offsets[b] + x.sample(b).rows + y.sample(b).rows;
  }
}

}  // namespace serrate
#endif  // HWY_ONCE
