// The dense kernels at the shapes of a training step: a batch of 256 sequences, some 12,550 tokens
// of dim 64, with 512 negatives. One thread.
#include <benchmark/benchmark.h>

#include <numeric>
#include <vector>

#include "serrate/buffer.h"
#include "serrate/kernels/activation.h"
#include "serrate/kernels/adamw.h"
#include "serrate/kernels/dropout.h"
#include "serrate/kernels/l2_normalize.h"
#include "serrate/kernels/layer_norm.h"
#include "serrate/kernels/linear.h"
#include "serrate/kernels/sampled_softmax.h"
#include "serrate/kernels/token_embedding.h"
#include "serrate/kernels/top_k.h"
#include "serrate/random.h"

namespace serrate {
namespace {

constexpr std::int64_t kTokens = 12550;

struct Matrix {
  Matrix(std::int64_t rows, std::int64_t cols, const Stream& stream)
      : buffer(rows * cols, stream), view(buffer.matrix(rows, cols)) {
    std::int64_t i = 0;
    for (float& value : host_view(buffer.span(), stream)) {
      value = static_cast<float>(2 * random_uniform(rows + cols, RandomUse::kInit, 0, i++) - 1);
    }
  }
  Buffer<float> buffer;
  DeviceMatrix<float> view;
};

// What is counted: floating point operations or elements.
void set_rate(benchmark::State& state, const char* name, std::int64_t per_iteration) {
  state.counters[name] = benchmark::Counter(static_cast<double>(per_iteration),
                                            benchmark::Counter::kIsIterationInvariantRate);
}

void linear_forward_case(benchmark::State& state) {
  const Stream stream;
  const std::int64_t in = state.range(0), out = state.range(1);
  Matrix x(kTokens, in, stream), weight(out, in, stream), bias(1, out, stream),
      y(kTokens, out, stream);
  for (auto _ : state) {
    linear_forward({x.view, weight.view, bias.buffer.span(), y.view}, stream);
  }
  set_rate(state, "flop", 2 * kTokens * in * out);
}
BENCHMARK(linear_forward_case)
    ->Name("linear_forward")
    ->Args({64, 64})
    ->Args({64, 192})
    ->Args({64, 256})
    ->Args({256, 64})
    ->Args({256, 1024})
    ->Args({50, 200});

void linear_backward_case(benchmark::State& state) {
  const Stream stream;
  const std::int64_t in = state.range(0), out = state.range(1);
  Matrix x(kTokens, in, stream), weight(out, in, stream), d_y(kTokens, out, stream),
      d_x(kTokens, in, stream), d_weight(out, in, stream), d_bias(1, out, stream);
  for (auto _ : state) {
    linear_backward({x.view, weight.view, d_y.view, d_x.view, d_weight.view, d_bias.buffer.span()},
                    stream);
  }
  set_rate(state, "flop", 4 * kTokens * in * out);
}
BENCHMARK(linear_backward_case)
    ->Name("linear_backward")
    ->Args({64, 64})
    ->Args({64, 192})
    ->Args({64, 256})
    ->Args({256, 64})
    ->Args({256, 1024})
    ->Args({50, 200});

void layer_norm_forward_case(benchmark::State& state) {
  const Stream stream;
  const std::int64_t dim = state.range(0);
  Matrix x(kTokens, dim, stream), y(kTokens, dim, stream), gamma(1, dim, stream),
      beta(1, dim, stream), mean(1, kTokens, stream), rstd(1, kTokens, stream);
  for (auto _ : state) {
    layer_norm_forward({x.view, gamma.buffer.span(), beta.buffer.span(), y.view, mean.buffer.span(),
                        rstd.buffer.span()},
                       stream);
  }
  set_rate(state, "elements", kTokens * dim);
}
BENCHMARK(layer_norm_forward_case)->Name("layer_norm_forward")->Arg(64)->Arg(256);

void layer_norm_backward_case(benchmark::State& state) {
  const Stream stream;
  const std::int64_t dim = state.range(0);
  Matrix x(kTokens, dim, stream), d_y(kTokens, dim, stream), d_x(kTokens, dim, stream),
      gamma(1, dim, stream), mean(1, kTokens, stream), rstd(1, kTokens, stream),
      d_gamma(1, dim, stream), d_beta(1, dim, stream);
  for (auto _ : state) {
    layer_norm_backward({x.view, d_y.view, gamma.buffer.span(), mean.buffer.span(),
                         rstd.buffer.span(), d_x.view, d_gamma.buffer.span(), d_beta.buffer.span()},
                        stream);
  }
  set_rate(state, "elements", kTokens * dim);
}
BENCHMARK(layer_norm_backward_case)->Name("layer_norm_backward")->Arg(64)->Arg(256);

void activation_forward_case(benchmark::State& state, Activation f) {
  const Stream stream;
  Matrix x(kTokens, 256, stream), y(kTokens, 256, stream);
  for (auto _ : state) activation_forward(f, x.view, y.view, stream);
  set_rate(state, "elements", kTokens * 256);
}
BENCHMARK_CAPTURE(activation_forward_case, gelu, Activation::kGelu)->Name("gelu_forward");
BENCHMARK_CAPTURE(activation_forward_case, silu, Activation::kSilu)->Name("silu_forward");

void activation_backward_case(benchmark::State& state, Activation f) {
  const Stream stream;
  Matrix x(kTokens, 256, stream), d_y(kTokens, 256, stream), d_x(kTokens, 256, stream);
  for (auto _ : state) activation_backward(f, x.view, d_y.view, d_x.view, stream);
  set_rate(state, "elements", kTokens * 256);
}
BENCHMARK_CAPTURE(activation_backward_case, gelu, Activation::kGelu)->Name("gelu_backward");
BENCHMARK_CAPTURE(activation_backward_case, silu, Activation::kSilu)->Name("silu_backward");

void dropout_case(benchmark::State& state) {
  const Stream stream;
  Matrix x(kTokens, 64, stream), residual(kTokens, 64, stream), y(kTokens, 64, stream);
  std::vector<std::int64_t> token_ids(kTokens);
  std::iota(token_ids.begin(), token_ids.end(), 0);
  const DropoutKey key{0.1f, 1, 2, 3, on_cpu(token_ids)};
  for (auto _ : state) dropout_forward(key, x.view, residual.view, y.view, stream);
  set_rate(state, "elements", kTokens * 64);
}
BENCHMARK(dropout_case)->Name("dropout_forward");

void l2_normalize_case(benchmark::State& state) {
  const Stream stream;
  Matrix x(kTokens, 64, stream), y(kTokens, 64, stream), norms(1, kTokens, stream);
  for (auto _ : state) l2_normalize_forward(x.view, y.view, norms.buffer.span(), stream);
  set_rate(state, "elements", kTokens * 64);
}
BENCHMARK(l2_normalize_case)->Name("l2_normalize_forward");

void sampled_softmax_case(benchmark::State& state) {
  const Stream stream;
  const std::int64_t num_negatives = state.range(0), dim = state.range(1);
  Matrix hidden(kTokens, dim, stream), targets(kTokens, dim, stream),
      negatives(num_negatives, dim, stream), d_hidden(kTokens, dim, stream),
      d_targets(kTokens, dim, stream), d_negatives(num_negatives, dim, stream);
  std::vector<std::int64_t> target_ids(kTokens), negative_ids(num_negatives);
  for (std::int64_t i = 0; i < kTokens; ++i) {
    target_ids[i] = random_below(1, RandomUse::kInit, 0, i, 1'000'000);
  }
  for (std::int64_t i = 0; i < num_negatives; ++i) {
    negative_ids[i] = random_below(2, RandomUse::kInit, 0, i, 1'000'000);
  }
  SampledSoftmax args{hidden.view, targets.view, negatives.view, on_cpu(target_ids),
                      on_cpu(negative_ids)};
  args.d_hidden = d_hidden.view;
  args.d_targets = d_targets.view;
  args.d_negatives = d_negatives.view;
  double loss = 0;
  for (auto _ : state) sampled_softmax(args, {&loss, 1}, stream);
  set_rate(state, "flop", 6 * kTokens * num_negatives * dim);
}
BENCHMARK(sampled_softmax_case)->Name("sampled_softmax")->Args({512, 64})->Args({3000, 64});

void adamw_case(benchmark::State& state) {
  const Stream stream;
  const std::int64_t n = 1 << 18;
  Matrix w(1, n, stream), g(1, n, stream), decay(1, n, stream);
  auto m = Buffer<float>::zeros(n, stream), v = Buffer<float>::zeros(n, stream);
  const AdamW args{w.buffer.span(), m.span(), v.span(), g.buffer.span(), decay.buffer.span(), {}};
  for (auto _ : state) adamw_update(args, stream);
  set_rate(state, "elements", n);
}
BENCHMARK(adamw_case)->Name("adamw_update");

void token_embedding_case(benchmark::State& state) {
  const Stream stream;
  Matrix feature(kTokens, 64, stream), position(256, 64, stream), x(kTokens, 64, stream);
  std::vector<std::int64_t> positions(kTokens);
  for (std::int64_t t = 0; t < kTokens; ++t) positions[t] = t % 49;
  const DeviceMatrix<const float> features[]{feature.view};
  const DeviceMatrix<float> d_features[]{feature.view};
  const bool is_backward = state.range(0) != 0;
  for (auto _ : state) {
    if (is_backward) {
      token_embedding_backward({x.view, on_cpu(positions), 8, d_features, position.view}, stream);
    } else {
      token_embedding_forward({features, position.view, on_cpu(positions), 8, x.view}, stream);
    }
  }
  set_rate(state, "elements", kTokens * 64);
}
BENCHMARK(token_embedding_case)->Name("token_embedding")->ArgName("backward")->Arg(0)->Arg(1);

void top_k_case(benchmark::State& state) {
  const Stream stream;
  const std::int64_t n = 128, candidates = 16384, k = state.range(0);
  Matrix scores(n, candidates, stream), best(n, k, stream);
  Buffer<std::int64_t> ids(n * k, stream);
  TopK args;
  args.scores = scores.view;
  args.best_scores = best.view;
  args.best_ids = ids.matrix(n, k);
  for (auto _ : state) top_k(args, stream);
  set_rate(state, "elements", n * candidates);
}
BENCHMARK(top_k_case)->Name("top_k")->Arg(10)->Arg(100);

}  // namespace
}  // namespace serrate
