#include <algorithm>
#include <cstdint>

#include "kernels/matrix_batch_checks.h"
#include "kernels/sample_tasks.h"
#include "kernels/simd_targets.h"
#include "serrate/kernels/jagged_elementwise.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/jagged_elementwise_cpu.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/simd_rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace serrate::HWY_NAMESPACE {

// f(x, y, z, size) for the rows of three matrices of z's shape, or for all of them at once where
// they lie one behind the other.
template <typename F>
void for_each_row(const float* x, std::int64_t x_stride, const float* y, std::int64_t y_stride,
                  const MatrixView<float>& z, const F& f) {
  if (x_stride == z.cols && y_stride == z.cols && z.stride == z.cols) {
    f(x, y, z.data, z.rows * z.cols);
    return;
  }
  for (std::int64_t r = 0; r < z.rows; ++r) f(x + r * x_stride, y + r * y_stride, z.row(r), z.cols);
}

// z = x op y where all three have the shape of z.
void combine(Elementwise op, const MatrixView<const float>& x, const MatrixView<const float>& y,
             const MatrixView<float>& z) {
  const auto rows = [&](const auto& f) {
    for_each_row(x.data, x.stride, y.data, y.stride, z,
                 [&](const float* a, const float* b, float* to, std::int64_t size) HWY_ATTR {
                   for_each_vector(size, [&](auto lanes, std::int64_t c) HWY_ATTR {
                     lanes.store(f(lanes.load(a + c), lanes.load(b + c)), to + c);
                   });
                 });
  };
  if (op == Elementwise::kAdd) {
    rows([](auto a, auto b) HWY_ATTR { return hn::Add(a, b); });
  } else {
    rows([](auto a, auto b) HWY_ATTR { return hn::Mul(a, b); });
  }
}

// d_y += d_z or d_z x: what a sample adds.
void accumulate(Elementwise op, const MatrixView<const float>& d_z,
                const MatrixView<const float>& x, const MatrixView<float>& d_y) {
  if (op == Elementwise::kAdd) return combine(op, d_z, d_y, d_y);
  for_each_row(d_z.data, d_z.stride, x.data, x.stride, d_y,
               [&](const float* a, const float* b, float* to, std::int64_t size) HWY_ATTR {
                 for_each_vector(size, [&](auto lanes, std::int64_t c) HWY_ATTR {
                   lanes.store(hn::MulAdd(lanes.load(a + c), lanes.load(b + c), lanes.load(to + c)),
                               to + c);
                 });
               });
}

}  // namespace serrate::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace serrate {
HWY_EXPORT(combine);
HWY_EXPORT(accumulate);

namespace {

// Rows [begin, end) of a, cut to the shape of what is in them in b too.
template <typename T, typename U>
MatrixView<T> common_rows(const MatrixView<T>& a, const MatrixView<U>& b, std::int64_t begin,
                          std::int64_t end) {
  const std::int64_t last = std::min({end, a.rows, b.rows});
  if (last <= begin) return {};
  return {a.row(begin), last - begin, std::min(a.cols, b.cols), a.stride};
}

// to = from, or 0 where there is none, outside its first `rows` rows and `cols` columns.
void fill_rest(const MatrixView<const float>& from, std::int64_t rows, std::int64_t cols,
               const MatrixView<float>& to) {
  for (std::int64_t r = 0; r < to.rows; ++r) {
    const std::int64_t begin = r < rows ? cols : 0;
    if (begin >= to.cols || (from.data && from.row(r) == to.row(r))) continue;
    if (from.data) {
      std::copy(from.row(r) + begin, from.row(r) + to.cols, to.row(r) + begin);
    } else {
      std::fill(to.row(r) + begin, to.row(r) + to.cols, 0.0f);
    }
  }
}

// Rows [begin, end) of z.
void combine_run(Elementwise op, const MatrixView<const float>& x, const MatrixView<const float>& y,
                 const MatrixView<float>& z, std::int64_t begin, std::int64_t end) {
  const MatrixView<float> both = common_rows(z, y, begin, end);
  if (both.rows > 0) {
    HWY_DYNAMIC_DISPATCH(combine)
    (op, common_rows(x, y, begin, end), common_rows(y, x, begin, end), both);
  }
  fill_rest(op == Elementwise::kAdd ? x.middle_rows(begin, end) : MatrixView<const float>(),
            both.rows, both.cols, z.middle_rows(begin, end));
}

constexpr auto kShapes = "jagged_elementwise: x and z must have the same shape";

}  // namespace

template <>
void jagged_elementwise_forward_on<DeviceType::kCpu>(const JaggedElementwise& args,
                                                     const Stream& stream) {
  check_offsets(args.x, "x of jagged_elementwise");
  check_offsets(args.y, "y of jagged_elementwise");
  check_offsets(args.z, "z of jagged_elementwise");
  check_same_shapes(args.x, args.z, kShapes);
  for_each_run(args.z, stream, [&](std::int64_t b, std::int64_t begin, std::int64_t end) {
    combine_run(args.op, args.x.sample(b), args.y.sample(b), args.z.sample(b), begin, end);
  });
}

// A task is a run of rows of d_y, of one sample if it is dense and of all in their order if it is
// shared. The last run takes the rows of d_x that d_y does not have.
template <>
void jagged_elementwise_backward_on<DeviceType::kCpu>(const JaggedElementwiseBackward& args,
                                                      const Stream& stream) {
  const bool is_product = args.op == Elementwise::kMultiply, is_shared = args.d_y.is_shared();
  check_offsets(args.d_z, "d_z of jagged_elementwise");
  check_offsets(args.d_y, "d_y of jagged_elementwise");
  if (is_product) {
    check_offsets(args.x, "x of jagged_elementwise");
    check_offsets(args.y, "y of jagged_elementwise");
    check_same_shapes(args.x, args.d_z, kShapes);
  }
  if (args.d_x.data) {
    check_offsets(args.d_x, "d_x of jagged_elementwise");
    check_same_shapes(args.d_x, args.d_z, kShapes);
  }
  MatrixBatch<float> written = args.d_y;
  if (is_shared) written.batch_size = 1;
  for_each_run(written, stream, [&](std::int64_t b, std::int64_t begin, std::int64_t end) {
    const MatrixView<float> d_y = written.sample(b);
    fill_rest({}, 0, 0, d_y.middle_rows(begin, end));
    for (std::int64_t s = is_shared ? 0 : b; s < (is_shared ? args.d_y.batch_size : b + 1); ++s) {
      const MatrixView<const float> d_z = args.d_z.sample(s);
      const MatrixView<const float> x = is_product ? args.x.sample(s) : d_z;
      const MatrixView<float> both = common_rows(d_y, d_z, begin, end);
      if (both.rows > 0) {
        HWY_DYNAMIC_DISPATCH(accumulate)
        (args.op, common_rows(d_z, d_y, begin, end), common_rows(x, d_y, begin, end), both);
      }
      const std::int64_t last = end == d_y.rows ? d_z.rows : std::min(end, d_z.rows);
      if (args.d_x.data && begin < last) {
        const auto y = is_product ? args.y.sample(s) : MatrixView<const float>();
        combine_run(args.op, d_z, y, args.d_x.sample(s), begin, last);
      }
    }
  });
}

}  // namespace serrate
#endif  // HWY_ONCE
