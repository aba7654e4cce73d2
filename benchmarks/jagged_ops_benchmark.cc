// The feature interaction ops on one thread: 2,048 sequences of up to 256 rows (log-normal, 106,000
// in all), D = T = 64, pairs [sum of N_b^2]; float32. Times are processor time, the best of all
// iterations. of_floor: the share of the time that the same binary needs, before and after the op,
// to copy as many bytes as the op has to read and write once (memcpy) or for as many operations in
// a BLAS product of 512 x 512 x 512, whichever is longer.
#include <benchmark/benchmark.h>
#include <cblas.h>

#include <algorithm>
#include <cstring>
#include <ctime>
#include <limits>
#include <numeric>
#include <vector>

#include "benchmarks/peer_lengths.h"
#include "serrate/buffer.h"
#include "serrate/kernels/jagged_bmm.h"
#include "serrate/kernels/jagged_concat.h"
#include "serrate/kernels/jagged_elementwise.h"
#include "serrate/kernels/jagged_padded.h"
#include "serrate/kernels/jagged_pairs.h"
#include "serrate/kernels/jagged_softmax.h"
#include "serrate/random.h"

namespace serrate {
namespace {

constexpr std::int64_t kBatchSize = 2048, kLongest = 256, kDim = 64;

const Stream kStream;

std::vector<std::int64_t> offsets_of(const std::vector<std::int64_t>& lengths) {
  std::vector<std::int64_t> offsets(lengths.size() + 1);
  std::partial_sum(lengths.begin(), lengths.end(), offsets.begin() + 1);
  return offsets;
}

struct Batch {
  std::vector<std::int64_t> offsets = offsets_of(lognormal_lengths(kBatchSize, kLongest));
  std::vector<std::int64_t> squares = std::vector<std::int64_t>(kBatchSize + 1);

  Batch() { pair_offsets(on_cpu(offsets), on_cpu(offsets), on_cpu(squares), kStream); }
  std::int64_t rows() const { return offsets.back(); }
  std::int64_t num_pairs() const { return squares.back(); }
};

const Batch& batch() {
  static const Batch only;
  return only;
}

// Uniform in [-1, 1).
struct Values {
  Buffer<float> buffer;
  MatrixBatch<float> view;

  explicit Values(std::int64_t size) : buffer(size, kStream) {
    std::int64_t i = 0;
    for (float& value : host_view(buffer.span(), kStream)) {
      value = static_cast<float>(2 * random_uniform(1, RandomUse::kInit, 0, i++) - 1);
    }
  }
  double bytes() const { return static_cast<double>(buffer.bytes()); }
};

Values jagged(std::int64_t cols = kDim) {
  Values values(batch().rows() * cols);
  values.view = MatrixBatch<float>::jagged(values.buffer.matrix(batch().rows(), cols),
                                           on_cpu(batch().offsets));
  return values;
}

Values dense(std::int64_t rows, std::int64_t cols = kDim) {
  Values values(kBatchSize * rows * cols);
  values.view =
      MatrixBatch<float>::dense(values.buffer.matrix(kBatchSize * rows, cols), kBatchSize);
  return values;
}

Values pairs() {
  Values values(batch().num_pairs());
  values.view = MatrixBatch<float>::pairs(values.buffer.span(), on_cpu(batch().squares),
                                          on_cpu(batch().offsets), on_cpu(batch().offsets));
  return values;
}

Values mask() {
  Values values(kLongest * kLongest);
  values.view = MatrixBatch<float>::shared(values.buffer.matrix(kLongest, kLongest), kBatchSize);
  return values;
}

template <typename F>
double cpu_seconds(const F& f) {
  const auto now = [] {
    timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
  };
  const double start = now();
  f();
  return now() - start;
}

// The time that copying `bytes` (read and written) and `flops` take at the least.
class Floor {
 public:
  Floor(double bytes, double flops) : bytes_(bytes), flops_(flops) {}
  /// Between ops, not between the runs of one: it leaves nothing of theirs in the caches.
  void measure() {
    for (int run = 0; run < 5; ++run) measure_once();
  }
  double seconds() const {
    const double copied = 2.0 * static_cast<double>(from_.size() * sizeof(float));
    const double product_flops = 2.0 * kSide * kSide * kSide;
    return std::max(copy_ * bytes_ / copied, flops_ == 0 ? 0 : product_ * flops_ / product_flops);
  }

 private:
  static constexpr std::int64_t kSide = 512;

  void measure_once() {
    copy_ = std::min(copy_, cpu_seconds([&] {
                       std::memcpy(to_.data(), from_.data(), from_.size() * sizeof(float));
                       benchmark::ClobberMemory();
                     }));
    if (flops_ == 0) return;
    product_ =
        std::min(product_, cpu_seconds([&] {
                   cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, kSide, kSide, kSide, 1,
                               from_.data(), kSide, from_.data(), kSide, 0, to_.data(), kSide);
                 }));
  }

  double bytes_, flops_;
  double copy_ = std::numeric_limits<double>::infinity(), product_ = copy_;
  std::vector<float> from_ = std::vector<float>(16 << 20, 1.0f), to_ = from_;  // 64 MB each
};

template <typename F>
void time_op(benchmark::State& state, double bytes, double flops, const F& op) {
  Floor floor(bytes, flops);
  double best = std::numeric_limits<double>::infinity();
  floor.measure();
  op();
  for (auto _ : state) {
    const double seconds = cpu_seconds(op);
    best = std::min(best, seconds);
    state.SetIterationTime(seconds);
  }
  floor.measure();
  state.counters["best_ms"] = best * 1e3;
  state.counters["GB/s"] = bytes / best / 1e9;
  if (flops > 0) state.counters["GFLOP/s"] = flops / best / 1e9;
  state.counters["of_floor"] = floor.seconds() / best;
}

void bmm(benchmark::State& state, Values (*make)(int operand), Transposed transposed,
         double flops) {
  Values x = make(0), y = make(1), z = make(2);
  const double bytes = x.bytes() + y.bytes() + z.bytes();
  if (state.range(0) == 0) {
    time_op(state, bytes, flops,
            [&] { jagged_bmm_forward({x.view, y.view, z.view, transposed}, kStream); });
    return;
  }
  Values d_x = make(0), d_y = make(1);
  time_op(state, bytes + d_x.bytes() + d_y.bytes(), 2 * flops, [&] {
    jagged_bmm_backward({x.view, y.view, z.view, d_x.view, d_y.view, transposed}, kStream);
  });
}

Values pick(int operand, Values (*first)(), Values (*second)(), Values (*third)()) {
  return operand == 0 ? first() : operand == 1 ? second() : third();
}
Values rows() {
  return jagged();
}
Values squares() {
  return dense(kDim);
}

void jagged_dense_bmm(benchmark::State& state) {
  bmm(
      state, [](int i) { return pick(i, rows, squares, rows); }, Transposed::kNone,
      2.0 * static_cast<double>(batch().rows() * kDim * kDim));
}
void jagged_jagged_bmm(benchmark::State& state) {
  bmm(
      state, [](int i) { return pick(i, rows, rows, squares); }, Transposed::kLeft,
      2.0 * static_cast<double>(batch().rows() * kDim * kDim));
}
void jagged_jagged_bmm_jagged_out(benchmark::State& state) {
  bmm(
      state, [](int i) { return pick(i, rows, rows, pairs); }, Transposed::kRight,
      2.0 * static_cast<double>(batch().num_pairs() * kDim));
}
void array_jagged_bmm_jagged_out(benchmark::State& state) {
  bmm(
      state, [](int i) { return pick(i, pairs, rows, rows); }, Transposed::kNone,
      2.0 * static_cast<double>(batch().num_pairs() * kDim));
}

void softmax(benchmark::State& state, Values (*make)(), SoftmaxAxis axis) {
  Values x = make(), z = make();
  if (state.range(0) == 0) {
    time_op(state, x.bytes() + z.bytes(), 0,
            [&] { jagged_softmax_forward({x.view, z.view, axis}, kStream); });
    return;
  }
  Values d_x = make();
  time_op(state, 3 * x.bytes(), 0,
          [&] { jagged_softmax_backward({z.view, x.view, d_x.view, axis}, kStream); });
}

void elementwise(benchmark::State& state, Elementwise op, Values (*make_x)(), Values (*make_y)()) {
  Values x = make_x(), y = make_y(), z = make_x();
  // Only the part of a dense y that x covers is read.
  const double read_of_y = y.view.is_shared() ? y.bytes() : x.bytes();
  if (state.range(0) == 0) {
    time_op(state, x.bytes() + z.bytes() + read_of_y, 0,
            [&] { jagged_elementwise_forward({op, x.view, y.view, z.view}, kStream); });
    return;
  }
  // The gradient of a sum by x is d_z itself.
  Values d_x = make_x(), d_y = make_y();
  const bool is_product = op == Elementwise::kMultiply;
  const double bytes =
      z.bytes() + d_y.bytes() + (is_product ? x.bytes() + d_x.bytes() + read_of_y : 0);
  time_op(state, bytes, 0, [&] {
    jagged_elementwise_backward(
        {op, x.view, y.view, z.view, is_product ? d_x.view : MatrixBatch<float>(), d_y.view},
        kStream);
  });
}

// 0: to padded, 1: to jagged.
void padded(benchmark::State& state, Values (*make_jagged)(), Values (*make_padded)()) {
  Values x = make_jagged(), to = make_padded();
  const bool pads = state.range(0) == 0;
  time_op(state, x.bytes() + (pads ? to.bytes() : x.bytes()), 0, [&] {
    if (pads) {
      jagged_to_padded(x.view, 0, to.view, kStream);
    } else {
      padded_to_jagged(to.view, x.view, kStream);
    }
  });
}

// 0: a dense row before every sequence, 1: the way back.
void concat(benchmark::State& state, std::int64_t cols) {
  Values row = dense(1, cols), x = jagged(cols), z((batch().rows() + kBatchSize) * cols);
  std::vector<std::int64_t> offsets(kBatchSize + 1);
  jagged_concat_offsets(row.view, x.view, on_cpu(offsets), kStream);
  z.view = MatrixBatch<float>::jagged(z.buffer.matrix(offsets.back(), cols), on_cpu(offsets));
  const bool joins = state.range(0) == 0;
  time_op(state, 2 * z.bytes(), 0, [&] {
    if (joins) {
      jagged_concat(row.view, x.view, z.view, kStream);
    } else {
      jagged_split(z.view, row.view, x.view, kStream);
    }
  });
}

void self_subtraction(benchmark::State& state) {
  std::vector<std::int64_t> x(batch().rows()), z_offsets(kBatchSize + 1);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<std::int64_t>(i) * 3600;
  self_subtraction_offsets(on_cpu(batch().offsets), on_cpu(z_offsets), kStream);
  Buffer<std::int64_t> z(z_offsets.back(), kStream);
  time_op(state, static_cast<double>(z.bytes()), 0, [&] {
    jagged_self_subtraction({on_cpu(x), on_cpu(batch().offsets), z.span(), on_cpu(z_offsets)},
                            kStream);
  });
}

Values column() {
  return jagged(1);
}
Values padded_rows() {
  return dense(kLongest);
}
Values padded_columns() {
  return dense(kLongest, 1);
}
Values padded_pairs() {
  return dense(kLongest, kLongest);
}

benchmark::internal::Benchmark* in_ms(benchmark::internal::Benchmark* b) {
  return b->ArgName("backward")->UseManualTime()->Unit(benchmark::kMillisecond);
}

void register_benchmarks() {
  const auto both_ways = [](const char* name, auto... arguments) {
    in_ms(benchmark::RegisterBenchmark(name, arguments...))->Arg(0)->Arg(1);
  };
  both_ways("jagged_dense_bmm", jagged_dense_bmm);
  both_ways("jagged_jagged_bmm", jagged_jagged_bmm);
  both_ways("jagged_jagged_bmm_jagged_out", jagged_jagged_bmm_jagged_out);
  both_ways("array_jagged_bmm_jagged_out", array_jagged_bmm_jagged_out);
  both_ways("jagged_softmax", softmax, rows, SoftmaxAxis::kRows);
  both_ways("jagged_softmax 1-D", softmax, column, SoftmaxAxis::kRows);
  both_ways("jagged2_softmax columns", softmax, pairs, SoftmaxAxis::kColumns);
  both_ways("jagged2_softmax rows", softmax, pairs, SoftmaxAxis::kRows);
  both_ways("jagged_dense_elementwise_add", elementwise, Elementwise::kAdd, rows, padded_rows);
  both_ways("jagged_dense_elementwise_mul", elementwise, Elementwise::kMultiply, rows, padded_rows);
  both_ways("jagged_dense_elementwise_mul mask", elementwise, Elementwise::kMultiply, pairs, mask);
  both_ways("jagged_to_padded_dense", padded, rows, padded_rows);
  both_ways("jagged_to_padded_dense 1-D", padded, column, padded_columns);
  both_ways("jagged2_to_padded_dense", padded, pairs, padded_pairs);
  both_ways("dense_jagged_cat 1-D", concat, 1);
  both_ways("dense_jagged_cat", concat, kDim);
  in_ms(benchmark::RegisterBenchmark("jagged_self_substraction", self_subtraction))->Arg(0);
}

}  // namespace
}  // namespace serrate

int main(int argc, char** argv) {
  serrate::register_benchmarks();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
}
