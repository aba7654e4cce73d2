#include <benchmark/benchmark.h>

#include <memory>
#include <vector>

#include "serrate/thread_communicator.h"

/// Exchanges between two ranks that are threads. The argument is bytes: to each rank for
/// all_to_all, of the whole vector for all_reduce_sum. Google Benchmark divides the time by the
/// number of threads: an exchange takes twice what is printed. Bytes per second count what both
/// ranks receive, their own share included; all_to_all is to be held against memcpy_by_both.
namespace serrate {
namespace {

constexpr int kRanks = 2;
constexpr int kWidth = 16;  // floats a row
const Stream kHost;

std::vector<std::unique_ptr<Communicator>> communicators;

void make_ranks(const benchmark::State&) {
  communicators = make_thread_communicators(kRanks, std::chrono::seconds(120));
}

void all_to_all(benchmark::State& state) {
  Communicator& communicator = *communicators[state.thread_index()];
  const std::int64_t rows = state.range(0) / (kWidth * sizeof(float));
  const std::vector<float> send(kRanks * rows * kWidth, 1.0f);
  const std::vector<std::int64_t> send_counts(kRanks, rows);
  Buffer<float> receive;
  std::vector<std::int64_t> counts;
  for (auto _ : state) {
    communicator.all_to_all<float>("exchange", send, send_counts, kWidth, receive, counts, kHost);
  }
  state.SetBytesProcessed(state.iterations() * kRanks * state.range(0));
}

void all_reduce_sum(benchmark::State& state) {
  std::vector<float> values(state.range(0) / sizeof(float), 0.0f);
  for (auto _ : state) {
    communicators[state.thread_index()]->all_reduce_sum<float>("sum", values, kHost);
  }
  state.SetBytesProcessed(state.iterations() * state.range(0));
}

void memcpy_by_both(benchmark::State& state) {
  const std::vector<float> from(kRanks * state.range(0) / sizeof(float), 1.0f);
  std::vector<float> to(from.size());
  for (auto _ : state) {
    copy(DeviceSpan<const float>(on_cpu(from)), on_cpu(to), kHost);
    benchmark::DoNotOptimize(to.data());
  }
  state.SetBytesProcessed(state.iterations() * kRanks * state.range(0));
}

BENCHMARK(all_to_all)
    ->Setup(make_ranks)
    ->Threads(kRanks)
    ->UseRealTime()
    ->Arg(64)
    ->RangeMultiplier(16)
    ->Range(4 << 10, 16 << 20)
    ->Arg(3 << 20);
BENCHMARK(all_reduce_sum)
    ->Setup(make_ranks)
    ->Threads(kRanks)
    ->UseRealTime()
    ->Arg(64)
    ->RangeMultiplier(16)
    ->Range(4 << 10, 16 << 20);
BENCHMARK(memcpy_by_both)->Threads(kRanks)->UseRealTime()->Arg(3 << 20)->Arg(16 << 20);

}  // namespace
}  // namespace serrate

BENCHMARK_MAIN();
