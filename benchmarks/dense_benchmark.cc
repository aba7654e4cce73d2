// The dense kernels at the shapes of a training step: a batch of 256 sequences, some 12,550 tokens
// of dim 64, with 512 negatives. On the CPU one thread.
//
//   dense_benchmark [--device cpu|cuda] [--tokens N] [--negatives N] [--flush-mib N] [--times N]
//   [--floor-side N] [Google Benchmark's options]
#include <numeric>
#include <vector>

#include "benchmarks/timed_cases.h"
#include "serrate/buffer.h"
#include "serrate/kernels/activation.h"
#include "serrate/kernels/adamw.h"
#include "serrate/kernels/dropout.h"
#include "serrate/kernels/l2_normalize.h"
#include "serrate/kernels/layer_norm.h"
#include "serrate/kernels/linear.h"
#include "serrate/kernels/round_to_bfloat16.h"
#include "serrate/kernels/sampled_softmax.h"
#include "serrate/kernels/token_embedding.h"
#include "serrate/kernels/top_k.h"
#include "serrate/random.h"

namespace serrate {
namespace {

using benchmark::State;

constexpr double kFloat = sizeof(float), kId = sizeof(std::int64_t);

/// Uniform in [-1, 1).
struct Matrix {
  Matrix(std::int64_t rows, std::int64_t cols, const Stream& stream)
      : buffer(values(rows, cols), stream), view(buffer.matrix(rows, cols)) {}
  static std::vector<float> values(std::int64_t rows, std::int64_t cols) {
    std::vector<float> all(static_cast<std::size_t>(rows * cols));
    std::int64_t i = 0;
    for (float& value : all) {
      value = static_cast<float>(2 * random_uniform(rows + cols, RandomUse::kInit, 0, i++) - 1);
    }
    return all;
  }
  DeviceSpan<float> span() { return buffer.span(); }

  Buffer<float> buffer;
  DeviceMatrix<float> view;
};

/// The same, stored as products of a precision take them.
struct Factor {
  Factor(std::int64_t rows, std::int64_t cols, Precision precision, const Stream& stream)
      : floats(rows, cols, stream), view(floats.view) {
    if (precision != Precision::kBf16) return;
    rounded = Buffer<BFloat16>(rows * cols, stream);
    round_to_bfloat16(floats.span(), rounded.span(), stream);
    view = rounded.matrix(rows, cols);
  }

  Matrix floats;
  Buffer<BFloat16> rounded;
  OutputMatrix view;
};
double bytes_of(Precision precision) {
  return precision == Precision::kBf16 ? sizeof(BFloat16) : kFloat;
}

/// A linear layer: from so many columns to so many.
struct Layer {
  std::int64_t in, out;
  Precision precision = Precision::kFp32;
};

void linear_forward_case(State& state, BenchmarkDevice& device, std::int64_t n, Layer layer) {
  const Stream& stream = device.stream();
  const auto [in, out, precision] = layer;
  Factor x(n, in, precision, stream), weight(out, in, precision, stream),
      bias(1, out, precision, stream), y(n, out, precision, stream);
  const BenchmarkWork work{
      .bytes = bytes_of(precision) * static_cast<double>(n * (in + out) + out * in),
      .flops = 2.0 * static_cast<double>(n * in * out),
      .precision = precision};
  time_case(state, device, work, [&] {
    linear_forward({x.view, weight.view, bias.view, y.view, layer.precision}, stream);
  });
}

// d_weight is read, too.
void linear_backward_case(State& state, BenchmarkDevice& device, std::int64_t n, Layer layer) {
  const Stream& stream = device.stream();
  const auto [in, out, precision] = layer;
  Factor x(n, in, precision, stream), weight(out, in, precision, stream),
      d_y(n, out, precision, stream), d_x(n, in, precision, stream);
  Matrix d_weight(out, in, stream), d_bias(1, out, stream);
  const auto factors = static_cast<double>(n * (2 * in + out) + out * in);
  const BenchmarkWork work{
      .bytes = bytes_of(precision) * factors + kFloat * static_cast<double>(2 * out * in),
      .flops = 4.0 * static_cast<double>(n * in * out),
      .precision = precision};
  time_case(state, device, work, [&] {
    linear_backward(
        {x.view, weight.view, d_y.view, d_x.view, d_weight.view, d_bias.span(), layer.precision},
        stream);
  });
}

/// What an op over so many matrices [n, cols] reads and writes.
BenchmarkWork elements(double matrices, std::int64_t n, std::int64_t cols) {
  return {.bytes = kFloat * matrices * static_cast<double>(n * cols)};
}

void layer_norm_forward_case(State& state, BenchmarkDevice& device, std::int64_t n,
                             std::int64_t dim) {
  const Stream& stream = device.stream();
  Matrix x(n, dim, stream), y(n, dim, stream), gamma(1, dim, stream), beta(1, dim, stream),
      mean(1, n, stream), rstd(1, n, stream);
  time_case(state, device, elements(2, n, dim), [&] {
    layer_norm_forward({x.view, gamma.span(), beta.span(), y.view, mean.span(), rstd.span()},
                       stream);
  });
}

void layer_norm_backward_case(State& state, BenchmarkDevice& device, std::int64_t n,
                              std::int64_t dim) {
  const Stream& stream = device.stream();
  Matrix x(n, dim, stream), d_y(n, dim, stream), d_x(n, dim, stream), gamma(1, dim, stream),
      mean(1, n, stream), rstd(1, n, stream), d_gamma(1, dim, stream), d_beta(1, dim, stream);
  time_case(state, device, elements(3, n, dim), [&] {
    layer_norm_backward({x.view, d_y.view, gamma.span(), mean.span(), rstd.span(), d_x.view,
                         d_gamma.span(), d_beta.span()},
                        stream);
  });
}

void activation_case(State& state, BenchmarkDevice& device, std::int64_t n, Activation f) {
  const Stream& stream = device.stream();
  Matrix x(n, 256, stream), y(n, 256, stream);
  time_case(state, device, elements(2, n, 256),
            [&] { activation_forward(f, x.view, y.view, stream); });
}

void activation_backward_case(State& state, BenchmarkDevice& device, std::int64_t n, Activation f) {
  const Stream& stream = device.stream();
  Matrix x(n, 256, stream), d_y(n, 256, stream), d_x(n, 256, stream);
  time_case(state, device, elements(3, n, 256),
            [&] { activation_backward(f, x.view, d_y.view, d_x.view, stream); });
}

void dropout_case(State& state, BenchmarkDevice& device, std::int64_t n) {
  const Stream& stream = device.stream();
  Matrix x(n, 64, stream), residual(n, 64, stream), y(n, 64, stream);
  std::vector<std::int64_t> ids(static_cast<std::size_t>(n));
  std::iota(ids.begin(), ids.end(), 0);
  const Buffer<std::int64_t> token_ids(ids, stream);
  const DropoutKey key{0.1f, 1, 2, 3, token_ids.span()};
  time_case(state, device, elements(3, n, 64),
            [&] { dropout_forward(key, x.view, residual.view, y.view, stream); });
}

void l2_normalize_case(State& state, BenchmarkDevice& device, std::int64_t n) {
  const Stream& stream = device.stream();
  Matrix x(n, 64, stream), y(n, 64, stream), norms(1, n, stream);
  time_case(state, device, elements(2, n, 64),
            [&] { l2_normalize_forward(x.view, y.view, norms.span(), stream); });
}

std::vector<std::int64_t> random_items(std::uint64_t seed, std::int64_t n) {
  std::vector<std::int64_t> ids(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i) {
    ids[i] = random_below(seed, RandomUse::kInit, 0, i, 1'000'000);
  }
  return ids;
}

void sampled_softmax_case(State& state, BenchmarkDevice& device, std::int64_t n,
                          std::int64_t num_negatives, Precision precision) {
  constexpr std::int64_t kDim = 64;
  const Stream& stream = device.stream();
  Matrix hidden(n, kDim, stream), targets(n, kDim, stream), negatives(num_negatives, kDim, stream),
      d_hidden(n, kDim, stream), d_targets(n, kDim, stream),
      d_negatives(num_negatives, kDim, stream);
  const Buffer<std::int64_t> target_ids(random_items(1, n), stream),
      negative_ids(random_items(2, num_negatives), stream);
  SampledSoftmax args{hidden.view, targets.view, negatives.view, target_ids.span(),
                      negative_ids.span()};
  args.d_hidden = d_hidden.view;
  args.d_targets = d_targets.view;
  args.d_negatives = d_negatives.view;
  args.precision = precision;
  Buffer<double> loss(1, stream);
  const auto both = static_cast<double>(n + num_negatives);
  const BenchmarkWork work{
      .bytes = kFloat * kDim * 2 * (both + static_cast<double>(n)) + kId * both,
      .flops = 6.0 * static_cast<double>(n * num_negatives * kDim),
      .precision = precision};
  time_case(state, device, work, [&] { sampled_softmax(args, loss.span(), stream); });
}

void adamw_case(State& state, BenchmarkDevice& device) {
  const Stream& stream = device.stream();
  const std::int64_t n = 1 << 18;
  Matrix w(1, n, stream), g(1, n, stream), decay(1, n, stream);
  auto m = Buffer<float>::zeros(n, stream), v = Buffer<float>::zeros(n, stream);
  const AdamW args{w.span(), m.span(), v.span(), g.span(), decay.span(), {}};
  time_case(state, device, elements(8, 1, n), [&] { adamw_update(args, stream); });
}

enum class Direction { kForward, kBackward };

void token_embedding_case(State& state, BenchmarkDevice& device, std::int64_t n, Direction way) {
  const Stream& stream = device.stream();
  Matrix feature(n, 64, stream), position(256, 64, stream), x(n, 64, stream);
  std::vector<std::int64_t> of_tokens(static_cast<std::size_t>(n));
  for (std::int64_t t = 0; t < n; ++t) of_tokens[t] = t % 49;
  const Buffer<std::int64_t> positions(of_tokens, stream);
  const DeviceMatrix<const float> features[]{feature.view};
  const DeviceMatrix<float> d_features[]{feature.view};
  time_case(state, device, elements(2, n, 64), [&] {
    if (way == Direction::kBackward) {
      token_embedding_backward({x.view, positions.span(), 8, d_features, position.view}, stream);
    } else {
      token_embedding_forward({features, position.view, positions.span(), 8, x.view}, stream);
    }
  });
}

void top_k_case(State& state, BenchmarkDevice& device, std::int64_t candidates, std::int64_t k) {
  const Stream& stream = device.stream();
  const std::int64_t n = 128;
  Matrix scores(n, candidates, stream), best(n, k, stream);
  Buffer<std::int64_t> ids(n * k, stream);
  TopK args;
  args.scores = scores.view;
  args.best_scores = best.view;
  args.best_ids = ids.matrix(n, k);
  time_case(state, device, elements(1, n, candidates), [&] { top_k(args, stream); });
}

void register_cases(BenchmarkDevice& device, std::int64_t n, std::int64_t negatives) {
  for (const auto& [in, out] :
       {std::pair{64, 64}, {64, 192}, {64, 256}, {256, 64}, {256, 1024}, {50, 200}}) {
    for (const auto precision : {Precision::kFp32, Precision::kTf32, Precision::kBf16}) {
      if (precision != Precision::kFp32 && !device.on_gpu()) continue;
      const std::string shape = fmt::format("/{}/{}/{}", in, out, to_string(precision));
      const Layer layer{in, out, precision};
      register_case("linear_forward" + shape, device, linear_forward_case, n, layer);
      register_case("linear_backward" + shape, device, linear_backward_case, n, layer);
    }
  }
  for (const std::int64_t dim : {64, 256}) {
    register_case(fmt::format("layer_norm_forward/{}", dim), device, layer_norm_forward_case, n,
                  dim);
    register_case(fmt::format("layer_norm_backward/{}", dim), device, layer_norm_backward_case, n,
                  dim);
  }
  for (const Activation f : {Activation::kGelu, Activation::kSilu}) {
    register_case(to_string(f) + "_forward", device, activation_case, n, f);
    register_case(to_string(f) + "_backward", device, activation_backward_case, n, f);
  }
  register_case("dropout_forward", device, dropout_case, n);
  register_case("l2_normalize_forward", device, l2_normalize_case, n);
  for (const std::int64_t count : {negatives, negatives * 6}) {
    for (const auto precision : {Precision::kFp32, Precision::kTf32, Precision::kBf16}) {
      if (precision != Precision::kFp32 && !device.on_gpu()) continue;
      register_case(fmt::format("sampled_softmax/{}/{}", count, to_string(precision)), device,
                    sampled_softmax_case, n, count, precision);
    }
  }
  register_case("adamw_update", device, adamw_case);
  register_case("token_embedding_forward", device, token_embedding_case, n, Direction::kForward);
  register_case("token_embedding_backward", device, token_embedding_case, n, Direction::kBackward);
  for (const std::int64_t k : {10, 100}) {
    register_case(fmt::format("top_k/{}", k), device, top_k_case, std::int64_t{16384}, k);
  }
}

}  // namespace
}  // namespace serrate

int main(int argc, char** argv) {
  using namespace serrate;  // NOLINT(google-build-using-namespace): main is outside of it
  BenchmarkArguments arguments(argc, argv);
  BenchmarkDevice device(arguments);
  const std::int64_t tokens = arguments.integer("--tokens", 12550);
  register_cases(device, tokens, arguments.integer("--negatives", 512));
  return run_cases(arguments, argc, argv);
}
