#pragma once

#include <benchmark/benchmark.h>

#include <algorithm>
#include <string>
#include <vector>

#include "benchmarks/benchmark_device.h"

namespace serrate {

/// The loop of a benchmark that was registered by register_case, over calls of f: the median and,
/// of what `work` counts, rates by it. On a GPU also that work, and as of_floor the share of the
/// time that BenchmarkDevice::floor_seconds() needs for it.
template <typename F>
void time_case(benchmark::State& state, BenchmarkDevice& device, const BenchmarkWork& work, F&& f) {
  f();
  device.stream().synchronize();
  std::vector<double> times;
  for (auto _ : state) {
    times.push_back(device.seconds(f));
    state.SetIterationTime(times.back());
  }
  const auto median = times.begin() + std::ssize(times) / 2;
  std::ranges::nth_element(times, median);
  state.counters["median_us"] = *median * 1e6;
  if (work.bytes > 0) state.counters["GB/s"] = work.bytes / *median * 1e-9;
  if (work.flops > 0) state.counters["GFLOP/s"] = work.flops / *median * 1e-9;
  if (device.on_gpu() && work.bytes > 0) {
    state.counters["bytes"] = work.bytes;
    if (work.flops > 0) state.counters["flop"] = work.flops;
    state.counters["of_floor"] = device.floor_seconds(work) / *median;
  }
}

/// f(state, device, arguments...) as a benchmark.
template <typename F, typename... Arguments>
benchmark::internal::Benchmark* register_case(const std::string& name, BenchmarkDevice& device, F f,
                                              const Arguments&... arguments) {
  auto* const made = benchmark::RegisterBenchmark(
      name.c_str(),
      [&device, f, arguments...](benchmark::State& state) { f(state, device, arguments...); });
  if (device.on_gpu()) made->Iterations(device.times());
  return made->UseManualTime()->Unit(benchmark::kMicrosecond);
}

/// Runs what was registered, by the arguments that are left.
inline int run_cases(BenchmarkArguments& arguments, int argc, char** argv) {
  arguments.pass_on(argc, argv);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

}  // namespace serrate
