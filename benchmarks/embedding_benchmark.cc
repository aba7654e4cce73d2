// Lookup and update of embedding tables, on the CPU on one thread, as benchmarks of FBGEMM's
// batched embedding are set up: 8 tables of 1 M rows, 2,048 bags of 20 ids. GB/s counts as FBGEMM
// does: bags * dim * (4 + bytes of a weight * ids per bag) for the lookup, twice that for the
// update.
//
//   embedding_benchmark [--device cpu|cuda] [--rows N] [--bags N] [--flush-mib N] [--times N]
//   [--floor-side N] [Google Benchmark's options]
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "benchmarks/timed_cases.h"
#include "serrate/buffer.h"
#include "serrate/kernels/embedding_lookup.h"
#include "serrate/kernels/embedding_update.h"
#include "serrate/random.h"

namespace serrate {
namespace {

constexpr std::int64_t kBagSize = 20, kNumTables = 8;

/// The size of a table, and its bags.
struct Sizes {
  std::int64_t rows, bags;
};

enum IdDistribution { kUniform, kZipf };

// Zipf: ranks by inverting the continuous law of exponent 1.05, spread over the table.
std::vector<std::int64_t> random_ids(const Sizes& sizes, IdDistribution distribution,
                                     std::uint32_t table) {
  std::vector<std::int64_t> ids(static_cast<std::size_t>(sizes.bags * kBagSize));
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (distribution == kUniform) {
      ids[i] = random_below(1, RandomUse::kGenerate, table, i, sizes.rows);
    } else {
      const double u = random_uniform(1, RandomUse::kGenerate, table, i);
      const double rank = std::min(std::pow(1 - u, -1 / 0.05), 1e15);
      ids[i] = static_cast<std::int64_t>(rank) % sizes.rows * 2654435761 % sizes.rows;
    }
  }
  return ids;
}

/// What tables hold, and how ids are drawn.
struct Case {
  std::int64_t dim;
  IdDistribution distribution;
  DataType type = DataType::kFloat32;  ///< or another, for rows that have weights alone
};

// Tables, ids and outputs of one case. As in ShardedEmbedding, a row of a table is the weights and
// behind them the optimizer's state, `num_arrays` times `dim` values.
struct Workload {
  const Stream& stream;
  Sizes sizes;
  std::int64_t dim, num_arrays;
  DataType type;
  std::vector<Buffer<float>> tables, outputs;
  std::vector<Buffer<std::int64_t>> ids;
  Buffer<std::int64_t> offsets;

  Workload(const Sizes& sizes_, const Case& c, std::int64_t num_arrays_, const Stream& stream_)
      : stream(stream_), sizes(sizes_), dim(c.dim), num_arrays(num_arrays_), type(c.type) {
    std::vector<std::int64_t> host_offsets(static_cast<std::size_t>(sizes.bags + 1));
    for (std::int64_t bag = 0; bag <= sizes.bags; ++bag) host_offsets[bag] = bag * kBagSize;
    offsets = {host_offsets, stream};
    for (std::int64_t t = 0; t < kNumTables; ++t) {
      tables.push_back(Buffer<float>::zeros(sizes.rows * num_arrays * dim, stream));
      outputs.emplace_back(std::vector<float>(static_cast<std::size_t>(sizes.bags * dim), 0.01f),
                           stream);
      ids.emplace_back(random_ids(sizes, c.distribution, static_cast<std::uint32_t>(t)), stream);
    }
  }
  DeviceMatrix<float> array(std::int64_t t, std::int64_t i) {
    return {tables[t].device_data() + i * dim, sizes.rows, dim, num_arrays * dim};
  }
  OutputMatrix table(std::int64_t t) {
    OutputMatrix rows = array(t, 0);
    rows.type = type;
    return rows;
  }
  DeviceMatrix<float> output(std::int64_t t) { return outputs[t].matrix(sizes.bags, dim); }
  GradientSegment gradient(std::int64_t t) {
    return {ids[t].span(), offsets.span(), {}, output(t)};
  }

  BenchmarkWork work(double passes) const {
    return {.bytes = passes * static_cast<double>(sizes.bags * kNumTables * dim *
                                                  (4 + size_of(type) * kBagSize))};
  }
};

// The floors: how fast one core reads memory in order (memchr has the widest loads of the machine),
// and how fast it, or the GPU, copies, counting what is read and what is written.
void read_bandwidth(benchmark::State& state, BenchmarkDevice& device) {
  const auto buffer = Buffer<std::uint8_t>::zeros(std::int64_t{1} << 29, device.stream());
  const std::span<const std::uint8_t> data = host_view(buffer.span(), device.stream());
  time_case(state, device, {.bytes = static_cast<double>(data.size())}, [&] {
    benchmark::DoNotOptimize(std::memchr(data.data(), 1, data.size()));
    benchmark::ClobberMemory();
  });
}

void copy_bandwidth(benchmark::State& state, BenchmarkDevice& device) {
  const auto from = Buffer<std::uint8_t>::zeros(std::int64_t{1} << 29, device.stream());
  auto to = Buffer<std::uint8_t>::zeros(from.size(), device.stream());
  time_case(state, device, {.bytes = 2 * static_cast<double>(from.size())},
            [&] { copy(from.span(), to.span(), device.stream()); });
}

void lookup(benchmark::State& state, BenchmarkDevice& device, const Sizes& sizes, const Case& c) {
  Workload work(sizes, c, 1, device.stream());
  std::vector<LookupSegment> segments;
  for (std::int64_t t = 0; t < kNumTables; ++t) {
    segments.push_back(
        {work.table(t), work.ids[t].span(), work.offsets.span(), {}, work.output(t)});
  }
  time_case(state, device, work.work(1), [&] { embedding_lookup(segments, work.stream); });
}

void update(benchmark::State& state, BenchmarkDevice& device, const Sizes& sizes, const Case& c,
            SparseOptimizer type) {
  const std::int64_t num_arrays = type == SparseOptimizer::kAdam      ? 3
                                  : type == SparseOptimizer::kAdagrad ? 2
                                                                      : 1;
  Workload work(sizes, c, num_arrays, device.stream());
  std::vector<Buffer<float>> row_states;
  for (std::int64_t t = 0; t < kNumTables; ++t) {
    const bool row_state = type == SparseOptimizer::kRowWiseAdagrad;
    row_states.push_back(Buffer<float>::zeros(row_state ? sizes.rows : 0, work.stream));
  }
  RowGroups groups;
  time_case(state, device, work.work(2), [&] {
    for (std::int64_t t = 0; t < kNumTables; ++t) {
      const GradientSegment segment = work.gradient(t);
      EmbeddingUpdate args;
      args.table = work.table(t);
      if (num_arrays > 1) args.state = work.array(t, 1);
      if (num_arrays > 2) args.second_moment = work.array(t, 2);
      if (row_states[t].size() > 0) args.state = row_states[t].matrix(sizes.rows, 1);
      args.segments = {&segment, 1};
      args.optimizer.type = type;
      args.step = 1;
      group_gradients(args.segments, sizes.rows, groups, work.stream);
      embedding_update(args, groups, {}, 0, work.stream);
    }
  });
}

// The part of an update that groups occurrences by row.
void group(benchmark::State& state, BenchmarkDevice& device, const Sizes& sizes,
           IdDistribution distribution) {
  Workload work(sizes, {0, distribution}, 1, device.stream());
  RowGroups groups;
  time_case(state, device, {}, [&] {
    for (std::int64_t t = 0; t < kNumTables; ++t) {
      const GradientSegment segment = work.gradient(t);
      group_gradients({&segment, 1}, sizes.rows, groups, work.stream);
    }
  });
}

void register_cases(BenchmarkDevice& device, const Sizes& sizes) {
  if (!device.on_gpu()) register_case("read_bandwidth", device, read_bandwidth);
  register_case("copy_bandwidth", device, copy_bandwidth);
  for (const IdDistribution distribution : {kUniform, kZipf}) {
    const char* const ids = distribution == kZipf ? "zipf" : "uniform";
    for (const std::int64_t dim : {128, 64, 32}) {
      const Case c{dim, distribution};
      register_case(fmt::format("lookup/dim:{}/{}", dim, ids), device, lookup, sizes, c);
      for (const auto type : {SparseOptimizer::kSgd, SparseOptimizer::kAdagrad,
                              SparseOptimizer::kRowWiseAdagrad, SparseOptimizer::kAdam}) {
        register_case(fmt::format("update/dim:{}/{}/{}", dim, ids, to_string(type)), device, update,
                      sizes, c, type);
      }
    }
    for (const auto& [type, name] :
         {std::pair{DataType::kFloat16, "fp16"}, {DataType::kBFloat16, "bf16"}}) {
      const Case c{128, distribution, type};
      register_case(fmt::format("lookup/dim:128/{}/{}", ids, name), device, lookup, sizes, c);
      register_case(fmt::format("update/dim:128/{}/row_wise_adagrad/{}", ids, name), device, update,
                    sizes, c, SparseOptimizer::kRowWiseAdagrad);
    }
    register_case(fmt::format("group/{}", ids), device, group, sizes, distribution);
  }
}

}  // namespace
}  // namespace serrate

int main(int argc, char** argv) {
  using namespace serrate;  // NOLINT(google-build-using-namespace): main is outside of it
  BenchmarkArguments arguments(argc, argv);
  BenchmarkDevice device(arguments);
  const Sizes sizes{arguments.integer("--rows", 1'000'000), arguments.integer("--bags", 2048)};
  register_cases(device, sizes);
  return run_cases(arguments, argc, argv);
}
