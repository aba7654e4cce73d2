// Jagged causal self-attention, in float32 or bfloat16. Work is counted as a jagged kernel needs
// it, and as the peers' scripts count it: 4 heads head_dim sum(L^2) / 2 forward, 2.5 times that
// backward.
//
//   attention_benchmark [--device cpu|cuda] [--bf16] [--flush-mib N] [--times N]
//   [--floor-side N] [Google Benchmark's options]
//   attention_benchmark --peer-cases [--threads N] [--case I]   one JSON line for each case of the
//                                                              peers, or for one of them; with
//                                                              --device and --bf16 too
//   attention_benchmark --mask-cases [--length N] [--rounds N]   one for each mask, see
//                                                                attention_masks.h
//   attention_benchmark --option-cases [--rounds N]   one for each option, see attention_options.h
// The last two are of the CPU.

#include <fmt/core.h>
#include <malloc.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <random>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "benchmarks/attention_masks.h"
#include "benchmarks/attention_options.h"
#include "benchmarks/peer_lengths.h"
#include "benchmarks/timed_cases.h"
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
template <typename T>
class Attention {
 public:
  Attention(const Case& c, const Stream& stream) : case_(c), stream_(stream) {
    std::vector<std::int64_t> offsets{0};
    for (const std::int64_t length : lengths_of(c.kind, c.batch_size, c.longest)) {
      offsets.push_back(offsets.back() + length);
      forward_flops_ += 2.0 * c.num_heads * c.head_dim * length * length;
    }
    offsets_ = {offsets, stream_};
    tokens_ = offsets.back();
    std::mt19937 generator(0);
    std::normal_distribution<float> normal;
    for (Buffer<T>* x : {&q_, &k_, &v_, &d_out_, &out_, &d_q_, &d_k_, &d_v_}) {
      std::vector<T> values(static_cast<std::size_t>(tokens_ * c.num_heads * c.head_dim));
      for (T& value : values) value = T(normal(generator));
      *x = Buffer<T>(values, stream_);
    }
    lse_ = Buffer<float>(tokens_ * c.num_heads, stream_);
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
  /// q, k, v, out and the log-sum-exp; those, d_out and three gradients.
  BenchmarkWork forward_work() const { return work(4, 1); }
  BenchmarkWork backward_work() const { return work(8, 2.5); }

 private:
  BenchmarkWork work(double rows, double forwards) const {
    constexpr auto kPrecision = std::is_same_v<T, float> ? Precision::kFp32 : Precision::kBf16;
    const auto heads = static_cast<double>(tokens_ * case_.num_heads);
    const double row_bytes = static_cast<double>(case_.head_dim) * sizeof(T);
    return {.bytes = heads * (rows * row_bytes + sizeof(float)),
            .flops = forwards * forward_flops_,
            .precision = kPrecision};
  }
  DeviceHeads<T> view(Buffer<T>& x) const {
    return {x.device_data(), case_.num_heads * case_.head_dim, case_.head_dim};
  }
  AttentionForward forward_args() {
    return {.q = view(q_),
            .k = view(k_),
            .v = view(v_),
            .out = view(out_),
            .lse = lse_.span(),
            .query_offsets = offsets_.span(),
            .key_offsets = offsets_.span(),
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
  const Stream& stream_;
  Buffer<std::int64_t> offsets_;
  std::int64_t tokens_ = 0;
  double forward_flops_ = 0;
  AttentionPlan plan_;
  Buffer<T> q_, k_, v_, d_out_, out_, d_q_, d_k_, d_v_;
  Buffer<float> lse_;
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

template <typename T>
void run_peer_cases(BenchmarkDevice& device, int num_threads, int only) {
  const Stream threads(Device::cpu(), num_threads);
  const Stream& stream = device.on_gpu() ? device.stream() : threads;
  for (const Case& c : kPeerCases) {
    if (only >= 0 && &c != &kPeerCases[only]) continue;
    Attention<T> attention(c, stream);
    const auto both = [&] {
      attention.forward();
      attention.backward();
    };
    both();
    const std::int64_t bytes = device.on_gpu() ? 0 : peak_extra_bytes(both);
    const auto median = [&](auto&& f) {
      return device.on_gpu() ? device.median_seconds(f) : median_seconds(f);
    };
    const double forward = median([&] { attention.forward(); });
    const double forward_backward = median(both);
    fmt::print(
        "{{\"case\": \"{}\", \"forward_ms\": {:.3f}, \"forward_backward_ms\": {:.3f}, "
        "\"peak_extra_bytes\": {}, \"forward_gflops\": {:.1f}, \"forward_backward_gflops\": "
        "{:.1f}, \"threads\": {}, \"device\": \"{}\", \"type\": \"{}\"}}\n",
        c.name(), forward * 1e3, forward_backward * 1e3, bytes,
        attention.forward_flops() / forward / 1e9,
        3.5 * attention.forward_flops() / forward_backward / 1e9, num_threads,
        to_string(stream.device()), std::is_same_v<T, float> ? "float32" : "bfloat16");
    std::fflush(stdout);
  }
}

template <typename T>
void register_cases(BenchmarkDevice& device) {
  const auto forward = [](benchmark::State& state, BenchmarkDevice& on, const Case& c) {
    Attention<T> attention(c, on.stream());
    time_case(state, on, attention.forward_work(), [&] { attention.forward(); });
  };
  const auto backward = [](benchmark::State& state, BenchmarkDevice& on, const Case& c) {
    Attention<T> attention(c, on.stream());
    attention.forward();
    time_case(state, on, attention.backward_work(), [&] { attention.backward(); });
  };
  const auto add = [&](const Case& c) {
    register_case("forward/" + c.name(), device, forward, c)->Unit(benchmark::kMillisecond);
    register_case("backward/" + c.name(), device, backward, c)->Unit(benchmark::kMillisecond);
  };
  for (const Case& c : kPeerCases) add(c);
  for (const Case& c : kOtherCases) add(c);
}

template <typename T>
int run(BenchmarkArguments& arguments, int argc, char** argv) {
  BenchmarkDevice device(arguments);
  if (arguments.flag("--peer-cases")) {
    const int only = std::stoi(arguments.text("--case", "-1"));
    const auto threads = static_cast<int>(arguments.integer("--threads", 1));
    arguments.finish();
    run_peer_cases<T>(device, threads, only);
    return 0;
  }
  register_cases<T>(device);
  return run_cases(arguments, argc, argv);
}

}  // namespace
}  // namespace serrate

int main(int argc, char** argv) {
  using namespace serrate;  // NOLINT(google-build-using-namespace): main is outside of it
  BenchmarkArguments arguments(argc, argv);
  if (arguments.flag("--mask-cases")) {
    run_mask_cases(static_cast<int>(arguments.integer("--length", 4096)),
                   static_cast<int>(arguments.integer("--rounds", 3)));
    return 0;
  }
  if (arguments.flag("--option-cases")) {
    run_option_cases(static_cast<int>(arguments.integer("--rounds", 5)));
    return 0;
  }
  if (arguments.flag("--bf16")) return run<BFloat16>(arguments, argc, argv);
  return run<float>(arguments, argc, argv);
}
