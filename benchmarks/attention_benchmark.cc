// Jagged causal self-attention, float32. Work is counted as a jagged kernel needs it, and as the
// peers' scripts count it: 4 heads head_dim sum(L^2) / 2 forward, 2.5 times that backward.
//
//   attention_benchmark [Google Benchmark's options]
//   attention_benchmark --peer-cases [--threads N] [--case I]   one JSON line for each case of the
//                                                              peers, or for one of them
//   attention_benchmark --mask-cases [--length N] [--rounds N]   one for each mask, see
//                                                                attention_masks.h
//   attention_benchmark --option-cases [--rounds N]   one for each option, see attention_options.h

#include <benchmark/benchmark.h>
#include <fmt/core.h>
#include <malloc.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "benchmarks/attention_masks.h"
#include "benchmarks/attention_options.h"
#include "benchmarks/peer_lengths.h"
#include "serrate/buffer.h"
#include "serrate/kernels/attention.h"

namespace serrate {
namespace {

struct Case {
  std::string kind;
  std::int64_t batch_size, longest, num_heads, head_dim;

  std::string name() const {
    return fmt::format("{} {}x{} {}x{}", kind, batch_size, longest, num_heads, head_dim);
  }
};

// In the order of the peers' script.
const Case kPeerCases[] = {
    {"fixed", 128, 50, 2, 32},  {"fixed", 64, 200, 4, 64}, {"lognormal", 256, 256, 4, 64},
    {"zipf", 256, 512, 4, 64},  {"zipf", 64, 2048, 4, 64}, {"fixed", 8, 1024, 4, 64},
    {"fixed", 2, 4096, 4, 128},
};

// Lengths that the peers' script has no case of.
const Case kOtherCases[] = {
    {"uniform", 256, 256, 4, 64}, {"fixed", 4096, 4, 4, 64}, {"fixed", 1024, 16, 4, 64}};

// Dense [num_tokens, num_heads, head_dim] arguments of one case.
class Attention {
 public:
  Attention(const Case& c, int num_threads) : case_(c), stream_(Device::cpu(), num_threads) {
    for (const std::int64_t length : lengths_of(c.kind, c.batch_size, c.longest)) {
      offsets_.push_back(offsets_.back() + length);
      forward_flops_ += 2.0 * c.num_heads * c.head_dim * length * length;
    }
    std::mt19937 generator(0);
    std::normal_distribution<float> normal;
    for (Buffer<float>* x : {&q_, &k_, &v_, &d_out_, &out_, &d_q_, &d_k_, &d_v_}) {
      *x = Buffer<float>(offsets_.back() * c.num_heads * c.head_dim, stream_);
      for (float& value : host_view(x->span(), stream_)) value = normal(generator);
    }
    lse_ = Buffer<float>(offsets_.back() * c.num_heads, stream_);
  }

  /// As a model of one layer calls it: the backward has the plan of its forward.
  void forward() {
    plan_ = plan_attention(forward_args(), stream_);
    jagged_attention_forward(planned_args(), stream_);
  }
  void backward() {
    jagged_attention_backward({.forward = planned_args(),
                               .d_out = view(d_out_),
                               .d_q = view(d_q_),
                               .d_k = view(d_k_),
                               .d_v = view(d_v_)},
                              stream_);
  }
  double forward_flops() const { return forward_flops_; }

 private:
  DeviceHeads<float> view(Buffer<float>& x) const {
    return {x.device_data(), case_.num_heads * case_.head_dim, case_.head_dim};
  }
  AttentionForward forward_args() {
    return {.q = view(q_),
            .k = view(k_),
            .v = view(v_),
            .out = view(out_),
            .lse = lse_.span(),
            .query_offsets = on_cpu(offsets_),
            .key_offsets = on_cpu(offsets_),
            .num_heads = case_.num_heads,
            .head_dim = case_.head_dim,
            .scale = 1 / std::sqrt(static_cast<float>(case_.head_dim)),
            .mask = kCausalMask};
  }
  AttentionForward planned_args() {
    AttentionForward args = forward_args();
    args.plan = &plan_;
    return args;
  }

  Case case_;
  Stream stream_;
  std::vector<std::int64_t> offsets_ = {0};
  double forward_flops_ = 0;
  AttentionPlan plan_;
  Buffer<float> q_, k_, v_, d_out_, out_, d_q_, d_k_, d_v_, lse_;
};

template <typename F>
double median_seconds(F&& f) {
  constexpr int kWarmups = 2;
  std::vector<double> times;
  double total = 0;
  for (int i = 0; i < kWarmups + 7 || (total < 0.5 && i < 100); ++i) {
    const auto start = std::chrono::steady_clock::now();
    f();
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    if (i >= kWarmups) times.push_back(time.count());
    total += time.count();
  }
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return times[times.size() / 2];
}

// A line "key:  123 kB" of /proc/self/status, in bytes.
std::int64_t memory_status(std::string_view key) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(key)) return 1024 * std::stoll(line.substr(key.size() + 1));
  }
  return 0;
}

// How far resident memory rises above what it is before f: all that f allocates and touches.
template <typename F>
std::int64_t peak_extra_bytes(F&& f) {
  malloc_trim(0);
  std::ofstream("/proc/self/clear_refs") << "5";  // the peak starts again from here
  const std::int64_t before = memory_status("VmRSS");
  f();
  return memory_status("VmHWM") - before;
}

void run_peer_cases(int num_threads, int only) {
  for (const Case& c : kPeerCases) {
    if (only >= 0 && &c != &kPeerCases[only]) continue;
    Attention attention(c, num_threads);
    const auto both = [&] {
      attention.forward();
      attention.backward();
    };
    both();
    const std::int64_t bytes = peak_extra_bytes(both);
    const double forward = median_seconds([&] { attention.forward(); });
    const double forward_backward = median_seconds(both);
    fmt::print(
        "{{\"case\": \"{}\", \"forward_ms\": {:.3f}, \"forward_backward_ms\": {:.3f}, "
        "\"peak_extra_bytes\": {}, \"forward_gflops\": {:.1f}, \"forward_backward_gflops\": "
        "{:.1f}, \"threads\": {}}}\n",
        c.name(), forward * 1e3, forward_backward * 1e3, bytes,
        attention.forward_flops() / forward / 1e9,
        3.5 * attention.forward_flops() / forward_backward / 1e9, num_threads);
    std::fflush(stdout);
  }
}

void set_flops(benchmark::State& state, double flops) {
  state.counters["FLOP/s"] = benchmark::Counter(flops * static_cast<double>(state.iterations()),
                                                benchmark::Counter::kIsRate);
}

void register_benchmark(const Case& c) {
  benchmark::RegisterBenchmark(("forward/" + c.name()).c_str(), [c](benchmark::State& state) {
    Attention attention(c, 1);
    for (auto _ : state) attention.forward();
    set_flops(state, attention.forward_flops());
  })->Unit(benchmark::kMillisecond);
  benchmark::RegisterBenchmark(("backward/" + c.name()).c_str(), [c](benchmark::State& state) {
    Attention attention(c, 1);
    attention.forward();
    for (auto _ : state) attention.backward();
    set_flops(state, 2.5 * attention.forward_flops());
  })->Unit(benchmark::kMillisecond);
}

}  // namespace
}  // namespace serrate

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  const auto given = [&](std::string_view name) {
    return std::find(arguments.begin(), arguments.end(), name) != arguments.end();
  };
  const auto number = [&](std::string_view name, int otherwise) {
    const auto option = std::find(arguments.begin(), arguments.end(), name);
    const bool has_value = option != arguments.end() && option + 1 != arguments.end();
    return has_value ? std::stoi(option[1]) : otherwise;
  };
  if (given("--peer-cases")) {
    serrate::run_peer_cases(number("--threads", 1), number("--case", -1));
    return 0;
  }
  if (given("--mask-cases")) {
    serrate::run_mask_cases(number("--length", 4096), number("--rounds", 3));
    return 0;
  }
  if (given("--option-cases")) {
    serrate::run_option_cases(number("--rounds", 5));
    return 0;
  }
  for (const auto& c : serrate::kPeerCases) serrate::register_benchmark(c);
  for (const auto& c : serrate::kOtherCases) serrate::register_benchmark(c);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
}
