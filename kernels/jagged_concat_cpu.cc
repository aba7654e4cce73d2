#include <algorithm>
#include <cstdint>

#include "kernels/copy_rows.h"
#include "kernels/matrix_batch_checks.h"
#include "kernels/sample_tasks.h"
#include "serrate/kernels/jagged_concat.h"

namespace serrate {
namespace {

void check_samples_fit(const MatrixBatch<const float>& x, const MatrixBatch<const float>& y,
                       const MatrixBatch<const float>& z) {
  check_offsets(x, "x of jagged_concat");
  check_offsets(y, "y of jagged_concat");
  check_offsets(z, "z of jagged_concat");
  check_samples(
      z.batch_size, "jagged_concat: z must have as many rows as x and y together",
      [&](std::int64_t b) { return z.sample(b).rows == x.sample(b).rows + y.sample(b).rows; });
}

// f(part of z, part of the operand) for rows [begin, end) of z that lie in an operand whose first
// row is z's row `first`.
template <typename Z, typename X, typename F>
void for_rows_in(const MatrixView<Z>& z, const MatrixView<X>& x, std::int64_t first,
                 std::int64_t begin, std::int64_t end, const F& f) {
  begin = std::max(begin, first);
  end = std::min(end, first + x.rows);
  if (begin < end) f(z.middle_rows(begin, end), x.middle_rows(begin - first, end - first));
}

}  // namespace

template <>
void jagged_concat_on<DeviceType::kCpu>(const MatrixBatch<const float>& x,
                                        const MatrixBatch<const float>& y,
                                        const MatrixBatch<float>& z, const Stream& stream) {
  check_samples_fit(x, y, z);
  const auto copy = [](const MatrixView<float>& to, const MatrixView<const float>& from) {
    copy_rows(from, to);
  };
  for_each_run(z, stream, [&](std::int64_t b, std::int64_t begin, std::int64_t end) {
    const MatrixView<const float> first = x.sample(b);
    for_rows_in(z.sample(b), first, 0, begin, end, copy);
    for_rows_in(z.sample(b), y.sample(b), first.rows, begin, end, copy);
  });
}

template <>
void jagged_split_on<DeviceType::kCpu>(const MatrixBatch<const float>& z,
                                       const MatrixBatch<float>& x, const MatrixBatch<float>& y,
                                       const Stream& stream) {
  check_samples_fit(x, y, z);
  const auto copy = [](const MatrixView<const float>& from, const MatrixView<float>& to) {
    copy_rows(from, to);
  };
  for_each_run(z, stream, [&](std::int64_t b, std::int64_t begin, std::int64_t end) {
    const MatrixView<float> first = x.sample(b);
    for_rows_in(z.sample(b), first, 0, begin, end, copy);
    for_rows_in(z.sample(b), y.sample(b), first.rows, begin, end, copy);
  });
}

template <>
void jagged_concat_offsets_on<DeviceType::kCpu>(const MatrixBatch<const float>& x,
                                                const MatrixBatch<const float>& y,
                                                std::span<std::int64_t> offsets, const Stream&) {
  offsets[0] = 0;
  for (std::int64_t b = 0; b + 1 < std::ssize(offsets); ++b) {
    offsets[b + 1] = offsets[b] + x.sample(b).rows + y.sample(b).rows;
  }
}

}  // namespace serrate
