// Lookup and update of embedding tables on one thread, as benchmarks of FBGEMM's batched embedding
// are set up: 8 tables of 1 M rows, 2,048 bags of 20 ids. bytes/s counts as FBGEMM does:
// 4 * bags * dim * (1 + ids per bag) for the lookup, twice that for the update.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "serrate/buffer.h"
#include "serrate/kernels/embedding_lookup.h"
#include "serrate/kernels/embedding_update.h"
#include "serrate/random.h"

namespace serrate {
namespace {

constexpr std::int64_t kNumRows = 1'000'000;
constexpr std::int64_t kNumBags = 2048;
constexpr std::int64_t kBagSize = 20;

enum IdDistribution { kUniform, kZipf };

// Zipf: ranks by inverting the continuous law of exponent 1.05, spread over the table.
std::vector<std::int64_t> random_ids(IdDistribution distribution, std::uint32_t table) {
  std::vector<std::int64_t> ids(kNumBags * kBagSize);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (distribution == kUniform) {
      ids[i] = random_below(1, RandomUse::kGenerate, table, i, kNumRows);
    } else {
      const double u = random_uniform(1, RandomUse::kGenerate, table, i);
      const double rank = std::min(std::pow(1 - u, -1 / 0.05), 1e15);
      ids[i] = static_cast<std::int64_t>(rank) % kNumRows * 2654435761 % kNumRows;
    }
  }
  return ids;
}

// Tables, ids and outputs of one case. As in ShardedEmbedding, a row of a table is the weights and
// behind them the optimizer's state, `num_arrays` times `dim` values.
struct Workload {
  Stream stream;
  std::int64_t num_tables, dim, num_arrays;
  std::vector<Buffer<float>> tables, outputs;
  std::vector<Buffer<std::int64_t>> ids;
  Buffer<std::int64_t> offsets;

  Workload(std::int64_t num_tables_, std::int64_t dim_, IdDistribution distribution,
           std::int64_t num_arrays_ = 1)
      : num_tables(num_tables_), dim(dim_), num_arrays(num_arrays_) {
    std::vector<std::int64_t> host_offsets(kNumBags + 1);
    for (std::int64_t bag = 0; bag <= kNumBags; ++bag) host_offsets[bag] = bag * kBagSize;
    offsets = {host_offsets, stream};
    for (std::int64_t t = 0; t < num_tables; ++t) {
      tables.push_back(Buffer<float>::zeros(kNumRows * num_arrays * dim, stream));
      outputs.push_back(Buffer<float>::zeros(kNumBags * dim, stream));
      ids.emplace_back(random_ids(distribution, static_cast<std::uint32_t>(t)), stream);
    }
  }
  DeviceMatrix<float> array(std::int64_t t, std::int64_t i) {
    return {tables[t].device_data() + i * dim, kNumRows, dim, num_arrays * dim};
  }
  DeviceMatrix<float> table(std::int64_t t) { return array(t, 0); }
  DeviceMatrix<float> output(std::int64_t t) { return outputs[t].matrix(kNumBags, dim); }

  void count_bytes(benchmark::State& state, double passes) const {
    const auto bytes = 4.0 * static_cast<double>(kNumBags * num_tables * dim * (1 + kBagSize));
    state.counters["bytes/s"] =
        benchmark::Counter(bytes * passes, benchmark::Counter::kIsIterationInvariantRate);
  }
};

// The floors: how fast one core reads memory in order (memchr has the widest loads of the machine),
// and how fast it copies, counting what is read and what is written.
void read_bandwidth(benchmark::State& state) {
  const Stream stream;
  const auto buffer = Buffer<std::uint8_t>::zeros(std::int64_t{1} << 29, stream);
  const std::span<const std::uint8_t> data = host_view(buffer.span(), stream);
  for (auto _ : state) {
    benchmark::DoNotOptimize(std::memchr(data.data(), 1, data.size()));
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * std::ssize(data));
}
BENCHMARK(read_bandwidth)->Unit(benchmark::kMillisecond);

void copy_bandwidth(benchmark::State& state) {
  const Stream stream;
  const auto from = Buffer<std::uint8_t>::zeros(std::int64_t{1} << 29, stream);
  auto to = Buffer<std::uint8_t>::zeros(from.size(), stream);
  for (auto _ : state) copy(from.span(), to.span(), stream);
  state.SetBytesProcessed(state.iterations() * 2 * from.size());
}
BENCHMARK(copy_bandwidth)->Unit(benchmark::kMillisecond);

void lookup(benchmark::State& state) {
  Workload work(state.range(0), state.range(1), static_cast<IdDistribution>(state.range(2)));
  std::vector<LookupSegment> segments;
  for (std::int64_t t = 0; t < work.num_tables; ++t) {
    segments.push_back(
        {work.table(t), work.ids[t].span(), work.offsets.span(), {}, work.output(t)});
  }
  for (auto _ : state) embedding_lookup(segments, work.stream);
  work.count_bytes(state, 1);
}
BENCHMARK(lookup)
    ->ArgNames({"tables", "dim", "zipf"})
    ->ArgsProduct({{8}, {128, 64, 32}, {kUniform, kZipf}})
    ->Unit(benchmark::kMillisecond);

void update(benchmark::State& state) {
  const auto type = static_cast<SparseOptimizer>(state.range(3));
  const std::int64_t num_arrays = type == SparseOptimizer::kAdam      ? 3
                                  : type == SparseOptimizer::kAdagrad ? 2
                                                                      : 1;
  Workload work(state.range(0), state.range(1), static_cast<IdDistribution>(state.range(2)),
                num_arrays);
  std::vector<Buffer<float>> row_states;
  for (std::int64_t t = 0; t < work.num_tables; ++t) {
    const bool row_state = type == SparseOptimizer::kRowWiseAdagrad;
    row_states.push_back(Buffer<float>::zeros(row_state ? kNumRows : 0, work.stream));
    std::ranges::fill(host_view(work.outputs[t].span(), work.stream), 0.01f);
  }
  RowGroups groups;
  for (auto _ : state) {
    for (std::int64_t t = 0; t < work.num_tables; ++t) {
      const GradientSegment segment{work.ids[t].span(), work.offsets.span(), {}, work.output(t)};
      EmbeddingUpdate args;
      args.table = work.table(t);
      if (num_arrays > 1) args.state = work.array(t, 1);
      if (num_arrays > 2) args.second_moment = work.array(t, 2);
      if (row_states[t].size() > 0) args.state = row_states[t].matrix(kNumRows, 1);
      args.segments = {&segment, 1};
      args.optimizer.type = type;
      group_gradients(args.segments, kNumRows, groups, work.stream);
      embedding_update(args, groups, {}, 0, work.stream);
    }
  }
  state.SetLabel(to_string(type));
  work.count_bytes(state, 2);
}
BENCHMARK(update)
    ->ArgNames({"tables", "dim", "zipf", "optimizer"})
    ->ArgsProduct({{8}, {128, 64, 32}, {kUniform, kZipf}, {0, 1, 2, 3}})
    ->Unit(benchmark::kMillisecond);

// The part of an update that groups occurrences by row.
void group(benchmark::State& state) {
  Workload work(state.range(0), 0, static_cast<IdDistribution>(state.range(1)));
  RowGroups groups;
  for (auto _ : state) {
    for (std::int64_t t = 0; t < work.num_tables; ++t) {
      const GradientSegment segment{work.ids[t].span(), work.offsets.span(), {}, {}};
      group_gradients({&segment, 1}, kNumRows, groups, work.stream);
    }
  }
}
BENCHMARK(group)
    ->ArgNames({"tables", "zipf"})
    ->ArgsProduct({{8}, {kUniform, kZipf}})
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace serrate

BENCHMARK_MAIN();
