// Jagged self-attention, in float32 or bfloat16.
//
//   attention_benchmark --device cuda [--workload W1,W6|all] [--bf16] [--json FILE]
//   [--sequences N] [--longest N] [--flush-mib N] [--times N] [--floor-side N]   the workloads of
//       docs/performance_gpu.md, forward and backward; --sequences and --longest cut them. The
//       lines of
//       --json are what benchmarks/peers/attention_gpu.py runs the peers on.
//   attention_benchmark [--bf16] [Google Benchmark's options]
//   attention_benchmark --peer-cases [--bf16] [--threads N] [--case I]   one JSON line for each
//                                                        case of the peers, or for one of them
//   attention_benchmark --mask-cases [--length N] [--rounds N]   one for each mask, see
//                                                                attention_masks.h
//   attention_benchmark --option-cases [--rounds N]   one for each option, see attention_options.h
// The last four are of the CPU; work is counted there as the peers' scripts count it: 4 heads
// head_dim sum(L^2) / 2 forward, 2.5 times that backward.

#include <fmt/core.h>
#include <malloc.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "benchmarks/attention_device.h"
#include "benchmarks/attention_masks.h"
#include "benchmarks/attention_options.h"
#include "benchmarks/attention_run.h"
#include "benchmarks/peer_lengths.h"
#include "benchmarks/timed_cases.h"
#include "serrate/error.h"

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

AttentionWorkload workload_of(const Case& c) {
  AttentionWorkload w;
  w.query_lengths = w.key_lengths = lengths_of(c.kind, c.batch_size, c.longest);
  w.num_heads = c.num_heads;
  w.head_dim = c.head_dim;
  return w;
}

double forward_flops(const Case& c) {
  double flops = 0;
  for (const std::int64_t length : lengths_of(c.kind, c.batch_size, c.longest)) {
    flops += 2.0 * static_cast<double>(c.num_heads * c.head_dim * length * length);
  }
  return flops;
}

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
void run_peer_cases(int num_threads, int only) {
  const Stream stream(Device::cpu(), num_threads);
  for (const Case& c : kPeerCases) {
    if (only >= 0 && &c != &kPeerCases[only]) continue;
    AttentionRun<T> attention(workload_of(c), stream);
    const auto forward_once = [&] {
      attention.plan();
      attention.forward();
    };
    const auto both = [&] {
      forward_once();
      attention.backward();
    };
    both();
    const std::int64_t bytes = peak_extra_bytes(both);
    const double forward = median_seconds(forward_once);
    const double forward_backward = median_seconds(both);
    fmt::print(
        "{{\"case\": \"{}\", \"forward_ms\": {:.3f}, \"forward_backward_ms\": {:.3f}, "
        "\"peak_extra_bytes\": {}, \"forward_gflops\": {:.1f}, \"forward_backward_gflops\": "
        "{:.1f}, \"threads\": {}, \"type\": \"{}\"}}\n",
        c.name(), forward * 1e3, forward_backward * 1e3, bytes, forward_flops(c) / forward / 1e9,
        3.5 * forward_flops(c) / forward_backward / 1e9, num_threads, to_string(data_type_of<T>()));
    std::fflush(stdout);
  }
}

template <typename T>
void register_cases(BenchmarkDevice& device) {
  const auto forward = [](benchmark::State& state, BenchmarkDevice& on, const Case& c) {
    AttentionRun<T> attention(workload_of(c), on.stream());
    time_case(state, on, {attention.forward_bytes(), forward_flops(c)}, [&] {
      attention.plan();
      attention.forward();
    });
  };
  const auto backward = [](benchmark::State& state, BenchmarkDevice& on, const Case& c) {
    AttentionRun<T> attention(workload_of(c), on.stream());
    attention.forward();
    time_case(state, on, {attention.backward_bytes(), 2.5 * forward_flops(c)},
              [&] { attention.backward(); });
  };
  const auto add = [&](const Case& c) {
    register_case("forward/" + c.name(), device, forward, c)->Unit(benchmark::kMillisecond);
    register_case("backward/" + c.name(), device, backward, c)->Unit(benchmark::kMillisecond);
  };
  for (const Case& c : kPeerCases) add(c);
  for (const Case& c : kOtherCases) add(c);
}

template <typename T>
int run(BenchmarkDevice& device, BenchmarkArguments& arguments, int argc, char** argv) {
  if (arguments.flag("--peer-cases")) {
    const int only = std::stoi(arguments.text("--case", "-1"));
    const auto threads = static_cast<int>(arguments.integer("--threads", 1));
    arguments.finish();
    run_peer_cases<T>(threads, only);
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
  BenchmarkDevice device(arguments);
  if (device.on_gpu()) {
    try {
      run_workloads(device, arguments);
    } catch (const Error& error) {
      fmt::print(stderr, "{}\n", error.what());
      return error.exit_code();
    }
    return 0;
  }
  if (arguments.flag("--bf16")) return run<BFloat16>(device, arguments, argc, argv);
  return run<float>(device, arguments, argc, argv);
}
