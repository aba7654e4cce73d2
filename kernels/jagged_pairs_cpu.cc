#include <algorithm>
#include <cstdint>

#include "kernels/matrix_batch_checks.h"
#include "kernels/sample_tasks.h"
#include "serrate/kernels/jagged_pairs.h"

namespace serrate {
namespace {

// Rows and columns of what a sequence's subtraction gives.
std::int64_t num_differences(std::span<const std::int64_t> offsets, std::int64_t b) {
  return std::max<std::int64_t>(offsets[b + 1] - offsets[b] - 1, 0);
}

}  // namespace

template <>
void pair_offsets_on<DeviceType::kCpu>(std::span<const std::int64_t> row_offsets,
                                       std::span<const std::int64_t> col_offsets,
                                       std::span<std::int64_t> offsets, const Stream&) {
  offsets[0] = 0;
  for (std::size_t b = 0; b + 1 < offsets.size(); ++b) {
    offsets[b + 1] =
        offsets[b] + (row_offsets[b + 1] - row_offsets[b]) * (col_offsets[b + 1] - col_offsets[b]);
  }
}

template <>
void jagged_self_subtraction_on<DeviceType::kCpu>(const JaggedSelfSubtraction& args,
                                                  const Stream& stream) {
  const std::int64_t batch_size = std::ssize(args.offsets) - 1;
  const auto size = [&](std::int64_t b) { return num_differences(args.offsets, b); };
  check(args.offsets.front() >= 0 && std::ranges::is_sorted(args.offsets) &&
            args.offsets.back() <= std::ssize(args.x) && args.z_offsets.front() >= 0 &&
            args.z_offsets.back() <= std::ssize(args.z),
        "jagged_self_subtraction: offsets must never fall or lead outside their values");
  check_samples(batch_size,
                "jagged_self_subtraction: z_offsets must be those of self_subtraction_offsets",
                [&](std::int64_t b) {
                  return args.z_offsets[b + 1] - args.z_offsets[b] == size(b) * size(b);
                });
  const auto tasks = longest_first(batch_size, 64, stream.num_threads(), size,
                                   [&](std::int64_t b) { return size(b) * size(b); });
#pragma omp parallel for schedule(dynamic, 4) num_threads(stream.num_threads())
  for (std::int64_t t = 0; t < std::ssize(tasks); ++t) {
    const auto [b, begin, end] = tasks[t];
    const std::int64_t* x = args.x.data() + args.offsets[b];
    const std::int64_t cols = size(b);
    std::int64_t* z = args.z.data() + args.z_offsets[b] + begin * cols;
    for (std::int64_t i = begin; i < end; ++i, z += cols) {
      for (std::int64_t j = 0; j < cols; ++j) z[j] = x[i] - x[j + 1];
    }
  }
}

template <>
void self_subtraction_offsets_on<DeviceType::kCpu>(std::span<const std::int64_t> offsets,
                                                   std::span<std::int64_t> z_offsets,
                                                   const Stream&) {
  z_offsets[0] = 0;
  for (std::int64_t b = 0; b + 1 < std::ssize(z_offsets); ++b) {
    const std::int64_t size = num_differences(offsets, b);
    z_offsets[b + 1] = z_offsets[b] + size * size;
  }
}

}  // namespace serrate
