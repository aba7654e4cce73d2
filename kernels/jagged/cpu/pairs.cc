#include <algorithm>
#include <cstdint>

#include "kernels/matrix_batch_checks.h"
#include "kernels/sample_tasks.h"
#include "kernels/simd/targets.h"
#include "serrate/kernels/jagged_pairs.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/jagged/cpu/pairs.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace serrate::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// z[j] = x - y[j]
void subtract_row(std::int64_t x, const std::int64_t* y, std::int64_t size, std::int64_t* z) {
  const hn::ScalableTag<std::int64_t> d;
  constexpr std::int64_t step = hn::MaxLanes(d);
  const auto all = hn::Set(d, x);
  std::int64_t j = 0;
  for (; j + step <= size; j += step) hn::StoreU(hn::Sub(all, hn::LoadU(d, y + j)), d, z + j);
  if (j == size) return;
  const auto rest = hn::FirstN(d, static_cast<std::size_t>(size - j));
  hn::BlendedStore(hn::Sub(all, hn::MaskedLoad(rest, d, y + j)), rest, d, z + j);
}

// Rows [begin, end) of a sequence of `cols` differences from each time.
void subtract_rows(const std::int64_t* x, std::int64_t begin, std::int64_t end, std::int64_t cols,
                   std::int64_t* z) {
  for (std::int64_t i = begin; i < end; ++i) subtract_row(x[i], x + 1, cols, z + i * cols);
}

}  // namespace serrate::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace serrate {
HWY_EXPORT(subtract_rows);

namespace {

// Rows and columns of what a sequence's subtraction gives.
std::int64_t num_differences(std::span<const std::int64_t> offsets, std::int64_t b) {
  return std::max<std::int64_t>(offsets[b + 1] - offsets[b] - 1, 0);
}

}  // namespace

template <>
void pair_offsets_on<DeviceType::kCpu>(DeviceSpan<const std::int64_t> of_rows,
                                       DeviceSpan<const std::int64_t> of_cols,
                                       DeviceSpan<std::int64_t> of_pairs, const Stream& stream) {
  const auto row_offsets = host_view(of_rows, stream), col_offsets = host_view(of_cols, stream);
  const std::span<std::int64_t> offsets = host_view(of_pairs, stream);
  offsets[0] = 0;
  for (std::size_t b = 0; b + 1 < offsets.size(); ++b) {
    offsets[b + 1] =
        offsets[b] + (row_offsets[b + 1] - row_offsets[b]) * (col_offsets[b + 1] - col_offsets[b]);
  }
}

template <>
void jagged_self_subtraction_on<DeviceType::kCpu>(const JaggedSelfSubtraction& args,
                                                  const Stream& stream) {
  const auto x = host_view(args.x, stream), offsets = host_view(args.offsets, stream);
  const auto z = host_view(args.z, stream);
  const auto z_offsets = host_view(args.z_offsets, stream);
  const std::int64_t batch_size = std::ssize(offsets) - 1;
  const auto size = [&](std::int64_t b) { return num_differences(offsets, b); };
  check(offsets.front() >= 0 && std::ranges::is_sorted(offsets) &&
            offsets.back() <= std::ssize(x) && z_offsets.front() >= 0 &&
            z_offsets.back() <= std::ssize(z),
        "jagged_self_subtraction: offsets must never fall or lead outside their values");
  check_samples(
      batch_size, "jagged_self_subtraction: z_offsets must be those of self_subtraction_offsets",
      [&](std::int64_t b) { return z_offsets[b + 1] - z_offsets[b] == size(b) * size(b); });
  const auto tasks = longest_first(batch_size, 64, stream.num_threads(), size,
                                   [&](std::int64_t b) { return size(b) * size(b); });
#pragma omp parallel for schedule(dynamic, 4) num_threads(stream.num_threads())
  for (std::int64_t t = 0; t < std::ssize(tasks); ++t) {
    const auto [b, begin, end] = tasks[t];
    HWY_DYNAMIC_DISPATCH(subtract_rows)
    (x.data() + offsets[b], begin, end, size(b), z.data() + z_offsets[b]);
  }
}

template <>
void self_subtraction_offsets_on<DeviceType::kCpu>(DeviceSpan<const std::int64_t> of_x,
                                                   DeviceSpan<std::int64_t> of_z,
                                                   const Stream& stream) {
  const auto offsets = host_view(of_x, stream);
  const auto z_offsets = host_view(of_z, stream);
  z_offsets[0] = 0;
  for (std::int64_t b = 0; b + 1 < std::ssize(z_offsets); ++b) {
    const std::int64_t size = num_differences(offsets, b);
    z_offsets[b + 1] = z_offsets[b] + size * size;
  }
}

}  // namespace serrate
#endif  // HWY_ONCE
