// The feature interaction ops: 2,048 sequences of up to 256 rows (log-normal, 106,000 in all),
// D = T = 64, pairs [sum of N_b^2]; float32. On the CPU one thread, processor time, the best of all
// iterations. of_floor: the share of the time that the same binary needs, before and after the op,
// to copy as many bytes as the op has to read and write once (memcpy) or for as many operations in
// a BLAS product of 512 x 512 x 512, whichever is longer. On a GPU medians by events, and its
// floor.
//
//   jagged_ops_benchmark [--device cpu|cuda] [--batch-size N] [--longest N] [--flush-mib N]
//   [--times N] [--floor-side N] [Google Benchmark's options]
#include <cblas.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include "benchmarks/peer_lengths.h"
#include "benchmarks/timed_cases.h"
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

constexpr std::int64_t kDim = 64;

std::vector<std::int64_t> offsets_of(const std::vector<std::int64_t>& lengths) {
  std::vector<std::int64_t> offsets(lengths.size() + 1);
  std::partial_sum(lengths.begin(), lengths.end(), offsets.begin() + 1);
  return offsets;
}

struct Batch {
  BenchmarkDevice& device;
  std::int64_t size, longest;
  Buffer<std::int64_t> offsets, squares;
  std::int64_t rows, num_pairs;

  Batch(std::int64_t size_, std::int64_t longest_, BenchmarkDevice& device_)
      : device(device_),
        size(size_),
        longest(longest_),
        offsets(offsets_of(lognormal_lengths(size, longest)), stream()),
        squares(size + 1, stream()) {
    pair_offsets(offsets.span(), offsets.span(), squares.span(), stream());
    rows = offsets.to_host(stream()).back();
    num_pairs = squares.to_host(stream()).back();
  }
  const Stream& stream() const { return device.stream(); }
};

// Uniform in [-1, 1).
struct Values {
  Buffer<float> buffer;
  MatrixBatch<float> view;

  Values(std::int64_t size, const Stream& stream) : buffer(draw(size), stream) {}
  double bytes() const { return static_cast<double>(buffer.bytes()); }

 private:
  static std::vector<float> draw(std::int64_t size) {
    std::vector<float> values(static_cast<std::size_t>(size));
    std::int64_t i = 0;
    for (float& value : values) {
      value = static_cast<float>(2 * random_uniform(1, RandomUse::kInit, 0, i++) - 1);
    }
    return values;
  }
};

Values jagged(const Batch& b, std::int64_t cols = kDim) {
  Values values(b.rows * cols, b.stream());
  values.view = MatrixBatch<float>::jagged(values.buffer.matrix(b.rows, cols), b.offsets.span());
  return values;
}

Values dense(const Batch& b, std::int64_t rows, std::int64_t cols = kDim) {
  Values values(b.size * rows * cols, b.stream());
  values.view = MatrixBatch<float>::dense(values.buffer.matrix(b.size * rows, cols), b.size);
  return values;
}

Values pairs(const Batch& b) {
  Values values(b.num_pairs, b.stream());
  values.view = MatrixBatch<float>::pairs(values.buffer.span(), b.squares.span(), b.offsets.span(),
                                          b.offsets.span());
  return values;
}

Values mask(const Batch& b) {
  Values values(b.longest * b.longest, b.stream());
  values.view = MatrixBatch<float>::shared(values.buffer.matrix(b.longest, b.longest), b.size);
  return values;
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
    keep_least(copy_, [&] {
      std::memcpy(to_.data(), from_.data(), from_.size() * sizeof(float));
      benchmark::ClobberMemory();
    });
    if (flops_ == 0) return;
    keep_least(product_, [&] {
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, kSide, kSide, kSide, 1, from_.data(),
                  kSide, from_.data(), kSide, 0, to_.data(), kSide);
    });
  }

  double bytes_, flops_;
  double copy_ = std::numeric_limits<double>::infinity(), product_ = copy_;
  std::vector<float> from_ = std::vector<float>(16 << 20, 1.0f), to_ = from_;  // 64 MB each
};

template <typename F>
void time_op(benchmark::State& state, const Batch& b, double bytes, double flops, const F& op) {
  if (b.device.on_gpu()) return time_case(state, b.device, {bytes, flops}, op);
  Floor floor(bytes, flops);
  double best = std::numeric_limits<double>::infinity();
  floor.measure();
  op();
  for (auto _ : state) {
    const double seconds = b.device.seconds(op);
    best = std::min(best, seconds);
    state.SetIterationTime(seconds);
  }
  floor.measure();
  state.counters["best_ms"] = best * 1e3;
  state.counters["GB/s"] = bytes / best / 1e9;
  if (flops > 0) state.counters["GFLOP/s"] = flops / best / 1e9;
  state.counters["of_floor"] = floor.seconds() / best;
}

enum class Direction { kForward, kBackward };
using Make = Values (*)(const Batch&);

void bmm(benchmark::State& state, const Batch& b, Direction way,
         Values (*make)(const Batch&, int operand), Transposed transposed, std::int64_t products) {
  const double flops = 2.0 * static_cast<double>(products);
  Values x = make(b, 0), y = make(b, 1), z = make(b, 2);
  const double bytes = x.bytes() + y.bytes() + z.bytes();
  if (way == Direction::kForward) {
    time_op(state, b, bytes, flops,
            [&] { jagged_bmm_forward({x.view, y.view, z.view, transposed}, b.stream()); });
    return;
  }
  Values d_x = make(b, 0), d_y = make(b, 1);
  time_op(state, b, bytes + d_x.bytes() + d_y.bytes(), 2 * flops, [&] {
    jagged_bmm_backward({x.view, y.view, z.view, d_x.view, d_y.view, transposed}, b.stream());
  });
}

template <Make kFirst, Make kSecond, Make kThird>
Values pick(const Batch& b, int operand) {
  return operand == 0 ? kFirst(b) : operand == 1 ? kSecond(b) : kThird(b);
}
Values rows(const Batch& b) {
  return jagged(b);
}
Values squares(const Batch& b) {
  return dense(b, kDim);
}

void jagged_dense_bmm(benchmark::State& state, const Batch& b, Direction way) {
  bmm(state, b, way, pick<rows, squares, rows>, Transposed::kNone, b.rows * kDim * kDim);
}
void jagged_jagged_bmm(benchmark::State& state, const Batch& b, Direction way) {
  bmm(state, b, way, pick<rows, rows, squares>, Transposed::kLeft, b.rows * kDim * kDim);
}
void jagged_jagged_bmm_jagged_out(benchmark::State& state, const Batch& b, Direction way) {
  bmm(state, b, way, pick<rows, rows, pairs>, Transposed::kRight, b.num_pairs * kDim);
}
void array_jagged_bmm_jagged_out(benchmark::State& state, const Batch& b, Direction way) {
  bmm(state, b, way, pick<pairs, rows, rows>, Transposed::kNone, b.num_pairs * kDim);
}

void softmax(benchmark::State& state, const Batch& b, Direction way, Make make, SoftmaxAxis axis) {
  Values x = make(b), z = make(b);
  if (way == Direction::kForward) {
    time_op(state, b, x.bytes() + z.bytes(), 0,
            [&] { jagged_softmax_forward({x.view, z.view, axis}, b.stream()); });
    return;
  }
  Values d_x = make(b);
  time_op(state, b, 3 * x.bytes(), 0,
          [&] { jagged_softmax_backward({z.view, x.view, d_x.view, axis}, b.stream()); });
}

void elementwise(benchmark::State& state, const Batch& b, Direction way, Elementwise op,
                 Make make_x, Make make_y) {
  Values x = make_x(b), y = make_y(b), z = make_x(b);
  // Only the part of a dense y that x covers is read.
  const double read_of_y = y.view.is_shared() ? y.bytes() : x.bytes();
  if (way == Direction::kForward) {
    time_op(state, b, x.bytes() + z.bytes() + read_of_y, 0,
            [&] { jagged_elementwise_forward({op, x.view, y.view, z.view}, b.stream()); });
    return;
  }
  // The gradient of a sum by x is d_z itself.
  Values d_x = make_x(b), d_y = make_y(b);
  const bool is_product = op == Elementwise::kMultiply;
  const double bytes =
      z.bytes() + d_y.bytes() + (is_product ? x.bytes() + d_x.bytes() + read_of_y : 0);
  time_op(state, b, bytes, 0, [&] {
    jagged_elementwise_backward(
        {op, x.view, y.view, z.view, is_product ? d_x.view : MatrixBatch<float>(), d_y.view},
        b.stream());
  });
}

// Forward: to padded; backward: to jagged.
void padded(benchmark::State& state, const Batch& b, Direction way, Make make_jagged,
            Make make_padded) {
  Values x = make_jagged(b), to = make_padded(b);
  const bool pads = way == Direction::kForward;
  time_op(state, b, x.bytes() + (pads ? to.bytes() : x.bytes()), 0, [&] {
    if (pads) {
      jagged_to_padded(x.view, 0, to.view, b.stream());
    } else {
      padded_to_jagged(to.view, x.view, b.stream());
    }
  });
}

// Forward: a dense row before every sequence; backward: the way back.
void concat(benchmark::State& state, const Batch& b, Direction way, std::int64_t cols) {
  Values row = dense(b, 1, cols), x = jagged(b, cols), z((b.rows + b.size) * cols, b.stream());
  Buffer<std::int64_t> offsets(b.size + 1, b.stream());
  jagged_concat_offsets(row.view, x.view, offsets.span(), b.stream());
  z.view = MatrixBatch<float>::jagged(z.buffer.matrix(b.rows + b.size, cols), offsets.span());
  const bool joins = way == Direction::kForward;
  time_op(state, b, 2 * z.bytes(), 0, [&] {
    if (joins) {
      jagged_concat(row.view, x.view, z.view, b.stream());
    } else {
      jagged_split(z.view, row.view, x.view, b.stream());
    }
  });
}

void self_subtraction(benchmark::State& state, const Batch& b, Direction) {
  std::vector<std::int64_t> times(static_cast<std::size_t>(b.rows));
  for (std::size_t i = 0; i < times.size(); ++i) times[i] = static_cast<std::int64_t>(i) * 3600;
  const Buffer<std::int64_t> x(times, b.stream());
  Buffer<std::int64_t> z_offsets(b.size + 1, b.stream());
  self_subtraction_offsets(b.offsets.span(), z_offsets.span(), b.stream());
  Buffer<std::int64_t> z(z_offsets.to_host(b.stream()).back(), b.stream());
  time_op(state, b, static_cast<double>(z.bytes()), 0, [&] {
    jagged_self_subtraction({x.span(), b.offsets.span(), z.span(), z_offsets.span()}, b.stream());
  });
}

Values column(const Batch& b) {
  return jagged(b, 1);
}
Values padded_rows(const Batch& b) {
  return dense(b, b.longest);
}
Values padded_columns(const Batch& b) {
  return dense(b, b.longest, 1);
}
Values padded_pairs(const Batch& b) {
  return dense(b, b.longest, b.longest);
}

void register_benchmarks(const Batch& batch) {
  const auto one_way = [&batch](const std::string& name, Direction way, auto f, auto... arguments) {
    const auto run = [&batch, f](benchmark::State& state, BenchmarkDevice&, Direction direction,
                                 auto... more) { f(state, batch, direction, more...); };
    register_case(name, batch.device, run, way, arguments...)->Unit(benchmark::kMillisecond);
  };
  const auto both_ways = [&](const std::string& name, auto f, auto... arguments) {
    one_way(name + "/backward:0", Direction::kForward, f, arguments...);
    one_way(name + "/backward:1", Direction::kBackward, f, arguments...);
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
  one_way("jagged_self_substraction/backward:0", Direction::kForward, self_subtraction);
}

}  // namespace
}  // namespace serrate

int main(int argc, char** argv) {
  using namespace serrate;  // NOLINT(google-build-using-namespace): main is outside of it
  BenchmarkArguments arguments(argc, argv);
  BenchmarkDevice device(arguments);
  const Batch batch(arguments.integer("--batch-size", 2048), arguments.integer("--longest", 256),
                    device);
  register_benchmarks(batch);
  return run_cases(arguments, argc, argv);
}
