#include <omp.h>

#include <bit>
#include <cmath>
#include <vector>

#include "kernels/embedding/adam_corrections.h"
#include "kernels/embedding/occurrence.h"
#include "kernels/jagged/split.h"
#include "kernels/simd/targets.h"
#include "serrate/kernels/embedding_update.h"

#ifndef SERRATE_KERNELS_HOST_EMBEDDING_UPDATE
#define SERRATE_KERNELS_HOST_EMBEDDING_UPDATE
namespace serrate {

// EmbeddingUpdate and RowGroups as the CPU reads them.
struct HostUpdate {
  OutputMatrix table;  // on the host
  MatrixView<float> state, second_moment;
  std::span<const MatrixView<const float>> gradients;  // [segments]
  SparseOptimizerOptions optimizer;
  std::int64_t step;
  TableRounding rounding;
};
struct HostGroups {
  std::span<const std::int64_t> rows, row_offsets;  // [num_rows], [num_rows + 1]
  std::span<const std::uint64_t> occurrences;
  std::span<const float> weights;
};

}  // namespace serrate
#endif

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/embedding/cpu/update.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/embedding/cpu/table_rows-inl.h"
#include "kernels/simd/row_ops-inl.h"

HWY_BEFORE_NAMESPACE();
namespace serrate::HWY_NAMESPACE {

// How far ahead table rows and their optimizer state are asked for; gradients as many rows ahead.
constexpr std::int64_t kBytesAhead = 6144;
constexpr std::int64_t kLineBytes = 64;

constexpr hn::ScalableTag<float> kFloats;
constexpr std::int64_t kLanes = hn::MaxLanes(kFloats);
using FloatVector = hn::Vec<hn::ScalableTag<float>>;

// The rows to look ahead when a row has its columns in `arrays` arrays.
std::int64_t rows_ahead(std::int64_t cols, std::int64_t arrays) {
  const std::int64_t row_bytes =
      HWY_MAX(cols * static_cast<std::int64_t>(sizeof(float)), kLineBytes);
  return HWY_MAX(2, kBytesAhead / (row_bytes * arrays));
}

// The gradients of one row, for sum_rows: occurrences from `first` of the groups.
struct GradientsOfRow {
  const MatrixView<const float>* gradients;  // of the segments
  const std::uint64_t* occurrences;          // of the groups
  const float* weights;                      // of the groups, or null
  std::int64_t first;
  std::int64_t ahead;
  std::int64_t last;  // of the groups

  const float* gradient(std::int64_t position) const {
    const std::uint64_t occurrence = occurrences[position];
    return gradients[segment_of(occurrence)].row(bag_of(occurrence));
  }
  const float* row(std::int64_t i) const { return gradient(first + i); }
  const float* row_ahead(std::int64_t i) const {
    return gradient(HWY_MIN(first + i + ahead, last));
  }
  float weight(std::int64_t i) const { return weights ? weights[first + i] : 1.0f; }
};

template <int kVectors>
HWY_INLINE void sum_gradients(const HostUpdate& args, const HostGroups& groups, std::int64_t i,
                              std::int64_t ahead, float* gradient) {
  const std::int64_t* offsets = groups.row_offsets.data();
  const GradientsOfRow rows{args.gradients.data(),
                            groups.occurrences.data(),
                            groups.weights.empty() ? nullptr : groups.weights.data(),
                            offsets[i],
                            ahead,
                            std::ssize(groups.occurrences) - 1};
  sum_rows<kVectors>(rows, offsets[i + 1] - offsets[i], args.table.cols, gradient);
}

// The sums of two neighbours each, of the lanes of two vectors.
HWY_INLINE FloatVector add_neighbours(FloatVector low, FloatVector high) {
#if HWY_TARGET == HWY_SCALAR  // a lane a vector
  return hn::Add(low, high);
#else
  return hn::Add(hn::ConcatEven(kFloats, high, low), hn::ConcatOdd(kFloats, high, low));
#endif
}

HWY_INLINE FloatVector squares_at(const float* values, std::int64_t cols, std::int64_t c) {
  const FloatVector v =
      c + kLanes <= cols ? hn::LoadU(kFloats, values + c)
                         : hn::MaskedLoad(hn::FirstN(kFloats, static_cast<std::size_t>(cols - c)),
                                          kFloats, values + c);
  return hn::Mul(v, v);
}

// Sums over kLanes runs of `vectors` columns each, from column c on; `vectors` is a power of two.
HWY_NOINLINE FloatVector sums_of_squares(const float* values, std::int64_t cols, std::int64_t c,
                                         std::int64_t vectors) {
  if (c >= cols) return hn::Zero(kFloats);
  if (vectors == 1) return squares_at(values, cols, c);
  const std::int64_t half = vectors / 2;
  return add_neighbours(sums_of_squares(values, cols, c, half),
                        sums_of_squares(values, cols, c + half * kLanes, half));
}

// By a binary tree over the columns (src/core/sum_tree.h), as which of them a shard has must not
// change bits: level after level of it, a vector of sums takes the place of two.
template <int kVectors>
HWY_INLINE float sum_of_squares(const float* values, std::int64_t cols) {
  FloatVector sum;
  if constexpr (kVectors > 0) {
    FloatVector sums[kVectors];
    for (int v = 0; v < kVectors; ++v) sums[v] = squares_at(values, kVectors * kLanes, v * kLanes);
    for (int count = kVectors / 2; count > 0; count /= 2) {
      for (int v = 0; v < count; ++v) sums[v] = add_neighbours(sums[2 * v], sums[2 * v + 1]);
    }
    sum = sums[0];
  } else {
    const auto vectors = static_cast<std::uint64_t>((cols + kLanes - 1) / kLanes);
    sum = sums_of_squares(values, cols, 0, static_cast<std::int64_t>(std::bit_ceil(vectors)));
  }
  for (std::int64_t lanes = kLanes; lanes > 1; lanes /= 2) sum = add_neighbours(sum, sum);
  return hn::GetLane(sum);
}

// w -= scale * g
template <int kVectors>
HWY_INLINE void subtract_scaled(float scale, const float* g, std::int64_t cols, float* w) {
  for_each_vector<kVectors>(0, cols, [&, scale](auto d, std::int64_t c) HWY_ATTR {
    hn::StoreU(hn::NegMulAdd(hn::Set(d, scale), hn::LoadU(d, g + c), hn::LoadU(d, w + c)), d,
               w + c);
  });
}

// The optimizers, with the number of arrays that hold columns of a row: step(i, row, g, w) changes
// the weights w of one row by its gradient g; i is the row's position in the groups. See
// SparseOptimizer for the definitions. Numbers are copied before the loops, as the compiler has to
// expect that a store changes the originals.
template <int kVectors>
struct Sgd {
  static constexpr std::int64_t kArrays = 1;
  const HostUpdate& args;

  HWY_INLINE void prefetch(std::int64_t) const {}
  HWY_INLINE void step(std::int64_t, std::int64_t, const float* g, float* w) const {
    subtract_scaled<kVectors>(args.optimizer.learning_rate, g, args.table.cols, w);
  }
};

template <int kVectors>
struct Adagrad {
  static constexpr std::int64_t kArrays = 2;
  const HostUpdate& args;

  HWY_INLINE void prefetch(std::int64_t row) const {
    prefetch_row<kVectors>(args.state.row(row), args.table.cols);
  }
  HWY_INLINE void step(std::int64_t, std::int64_t row, const float* g, float* w) const {
    const float rate = args.optimizer.learning_rate, eps = args.optimizer.eps;
    float* s = args.state.row(row);
    for_each_vector<kVectors>(0, args.table.cols, [=](auto d, std::int64_t c) HWY_ATTR {
      const auto gradient = hn::LoadU(d, g + c);
      const auto sum = hn::MulAdd(gradient, gradient, hn::LoadU(d, s + c));
      const auto root = hn::Add(hn::Sqrt(sum), hn::Set(d, eps));
      const auto change = hn::Div(hn::Mul(hn::Set(d, rate), gradient), root);
      hn::StoreU(sum, d, s + c);
      hn::StoreU(hn::Sub(hn::LoadU(d, w + c), change), d, w + c);
    });
  }
};

template <int kVectors>
struct RowWiseAdagrad {
  static constexpr std::int64_t kArrays = 1;
  const HostUpdate& args;
  std::span<const float> row_squares;
  float full_dim;

  HWY_INLINE void prefetch(std::int64_t row) const { hwy::Prefetch(args.state.row(row)); }
  HWY_INLINE void step(std::int64_t first, std::int64_t row, const float* g, float* w) const {
    const std::int64_t cols = args.table.cols;
    const float squares =
        row_squares.empty() ? sum_of_squares<kVectors>(g, cols) : row_squares[first];
    float& sum = *args.state.row(row);
    sum += squares / full_dim;
    const float scale = args.optimizer.learning_rate / (std::sqrt(sum) + args.optimizer.eps);
    subtract_scaled<kVectors>(scale, g, cols, w);
  }
};

template <int kVectors>
struct Adam {
  static constexpr std::int64_t kArrays = 3;
  const HostUpdate& args;
  AdamCorrections corrections;

  HWY_INLINE void prefetch(std::int64_t row) const {
    prefetch_row<kVectors>(args.state.row(row), args.table.cols);
    prefetch_row<kVectors>(args.second_moment.row(row), args.table.cols);
  }
  HWY_INLINE void step(std::int64_t, std::int64_t row, const float* g, float* w) const {
    const float beta1 = args.optimizer.beta1, beta2 = args.optimizer.beta2;
    const float eps = args.optimizer.eps;
    const AdamCorrections corrected = corrections;
    float *m = args.state.row(row), *v = args.second_moment.row(row);
    for_each_vector<kVectors>(0, args.table.cols, [=](auto d, std::int64_t c) HWY_ATTR {
      const auto gradient = hn::LoadU(d, g + c);
      const auto first = hn::MulAdd(hn::Set(d, beta1), hn::LoadU(d, m + c),
                                    hn::Mul(hn::Set(d, 1 - beta1), gradient));
      const auto second = hn::MulAdd(hn::Set(d, beta2), hn::LoadU(d, v + c),
                                     hn::Mul(hn::Set(d, 1 - beta2), hn::Mul(gradient, gradient)));
      const auto root = hn::MulAdd(hn::Sqrt(second), hn::Set(d, corrected.second), hn::Set(d, eps));
      const auto change = hn::Div(hn::Mul(hn::Set(d, corrected.learning_rate), first), root);
      hn::StoreU(first, d, m + c);
      hn::StoreU(second, d, v + c);
      hn::StoreU(hn::Sub(hn::LoadU(d, w + c), change), d, w + c);
    });
  }
};

// Rows [begin, end) of the groups.
template <int kVectors, class Rows, class Optimizer>
void step_rows(const HostUpdate& args, const HostGroups& groups, Rows weights,
               const Optimizer& optimizer, std::int64_t begin, std::int64_t end) {
  const std::int64_t* rows = groups.rows.data();
  const std::int64_t ahead = rows_ahead(args.table.cols, Optimizer::kArrays);
  std::vector<float> gradient(args.table.cols);
  for (std::int64_t i = begin; i < end; ++i) {
    const std::int64_t row_ahead = rows[HWY_MIN(i + ahead, end - 1)];
    weights.prefetch(row_ahead);
    optimizer.prefetch(row_ahead);
    sum_gradients<kVectors>(args, groups, i, ahead, gradient.data());
    optimizer.step(groups.row_offsets[i], rows[i], gradient.data(), weights.load(rows[i]));
    weights.store(rows[i]);
  }
}

template <int kVectors, class Optimizer>
void step_rows(const HostUpdate& args, const HostGroups& groups, const Optimizer& optimizer,
               std::int64_t begin, std::int64_t end) {
  switch (args.table.type) {
    case DataType::kFloat32:
      return step_rows<kVectors>(args, groups, FloatRows<kVectors>(args.table), optimizer, begin,
                                 end);
    case DataType::kFloat16:
      return step_rows<kVectors>(args, groups,
                                 RoundedRows<Float16>(args.table, args.rounding, args.step),
                                 optimizer, begin, end);
    case DataType::kBFloat16:
      return step_rows<kVectors>(args, groups,
                                 RoundedRows<BFloat16>(args.table, args.rounding, args.step),
                                 optimizer, begin, end);
  }
}

void update_rows(const HostUpdate& args, const HostGroups& groups,
                 std::span<const float> row_squares, std::int64_t full_dim, std::int64_t begin,
                 std::int64_t end) {
  dispatch_width(args.table.cols, [&](auto vectors) {
    constexpr int kVectors = vectors();
    switch (args.optimizer.type) {
      case SparseOptimizer::kSgd:
        return step_rows<kVectors>(args, groups, Sgd<kVectors>{args}, begin, end);
      case SparseOptimizer::kAdagrad:
        return step_rows<kVectors>(args, groups, Adagrad<kVectors>{args}, begin, end);
      case SparseOptimizer::kRowWiseAdagrad: {
        const auto dim = static_cast<float>(row_squares.empty() ? args.table.cols : full_dim);
        return step_rows<kVectors>(args, groups, RowWiseAdagrad<kVectors>{args, row_squares, dim},
                                   begin, end);
      }
      case SparseOptimizer::kAdam: {
        const Adam<kVectors> adam{args, adam_corrections(args.optimizer, args.step)};
        return step_rows<kVectors>(args, groups, adam, begin, end);
      }
    }
  });
}

void square_rows(const HostUpdate& args, const HostGroups& groups,
                 std::span<const ColumnRange> columns, std::span<float> squares, std::int64_t begin,
                 std::int64_t end) {
  const std::int64_t ahead = rows_ahead(args.table.cols, 1);
  const std::int64_t stride = std::ssize(squares) / std::ssize(columns);
  std::vector<float> gradient(args.table.cols);
  dispatch_width(args.table.cols, [&](auto vectors) {
    for (std::int64_t i = begin; i < end; ++i) {
      sum_gradients<vectors()>(args, groups, i, ahead, gradient.data());
      for (std::int64_t k = 0; k < std::ssize(columns); ++k) {
        squares[k * stride + groups.row_offsets[i]] = sum_of_squares<0>(
            gradient.data() + columns[k].begin, columns[k].end - columns[k].begin);
      }
    }
  });
}

}  // namespace serrate::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace serrate {
namespace {

HWY_EXPORT(update_rows);
HWY_EXPORT(square_rows);

// Calls f(update, groups, begin, end) with the thread's own run of rows: each row is one thread's,
// whole.
template <class F>
void for_each_row_range(const EmbeddingUpdate& args, const RowGroups& groups, const Stream& stream,
                        F f) {
  std::vector<MatrixView<const float>> gradients;
  for (const GradientSegment& s : args.segments) gradients.push_back(host_view(s.d_output, stream));
  check_host_may_read(stream);
  const HostUpdate update{args.table,
                          host_view(args.state, stream),
                          host_view(args.second_moment, stream),
                          gradients,
                          args.optimizer,
                          args.step,
                          args.rounding};
  const std::int64_t num_rows = host_view(groups.num_rows.span(), stream)[0];
  const HostGroups host{host_view(groups.rows.span(), stream).first(num_rows),
                        host_view(groups.row_offsets.span(), stream).first(num_rows + 1),
                        host_view(groups.occurrences.span(), stream),
                        host_view(groups.weights.span(), stream)};
#pragma omp parallel num_threads(stream.num_threads())
  {
    const int thread = omp_get_thread_num(), num_threads = omp_get_num_threads();
    f(update, host, split_jagged(host.row_offsets, thread, num_threads),
      split_jagged(host.row_offsets, thread + 1, num_threads));
  }
}

}  // namespace

template <>
void gradient_row_squares_on<DeviceType::kCpu>(const EmbeddingUpdate& args, const RowGroups& groups,
                                               std::span<const ColumnRange> columns,
                                               DeviceSpan<float> squares, const Stream& stream) {
  const std::span<float> host_squares = host_view(squares, stream);
  for_each_row_range(
      args, groups, stream,
      [&](const HostUpdate& update, const HostGroups& host, std::int64_t begin, std::int64_t end) {
        HWY_DYNAMIC_DISPATCH(square_rows)
        (update, host, columns, host_squares, begin, end);
      });
}

template <>
void embedding_update_on<DeviceType::kCpu>(const EmbeddingUpdate& args, const RowGroups& groups,
                                           DeviceSpan<const float> row_squares,
                                           std::int64_t full_dim, const Stream& stream) {
  const std::span<const float> host_squares = host_view(row_squares, stream);
  for_each_row_range(
      args, groups, stream,
      [&](const HostUpdate& update, const HostGroups& host, std::int64_t begin, std::int64_t end) {
        HWY_DYNAMIC_DISPATCH(update_rows)
        (update, host, host_squares, full_dim, begin, end);
      });
}

}  // namespace serrate
#endif
