// The payload collectives between ranks, as nccl-tests prints them: threads, or the processes of
// mpirun. `size` is what nccl-tests takes it for: the bytes that a rank sends (all_to_all), the
// whole of what is gathered, summed or scattered. algbw is size / time; busbw is what a link moves,
// by nccl-tests' factors. `copy` is the same bytes copied by each rank on its own: what the machine
// has to give.
#include <fmt/format.h>

#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "benchmarks/benchmark_ranks.h"
#include "serrate/communicator.h"

namespace serrate {
namespace {

struct Sizes {
  std::int64_t least = 64, most = 64 << 20, factor = 4;
};

// What one rank has for all operations: rows of one float.
struct Rows {
  Rows(Communicator& c, std::int64_t count, const Stream& rank_stream)
      : communicator(c),
        stream(rank_stream),
        values(Buffer<float>::zeros(count, rank_stream)),
        received(Buffer<float>::zeros(count, rank_stream)),
        counts(static_cast<std::size_t>(c.size()), count / c.size()) {}

  DeviceSpan<float> part() {
    return received.span().first(static_cast<std::size_t>(counts.front()));
  }

  Communicator& communicator;
  const Stream& stream;
  Buffer<float> values, received;
  std::vector<std::int64_t> counts;
};

struct Operation {
  std::string name, redop;
  std::function<void(Rows&)> run;
  std::function<double(double ranks)> bus_factor;
};

std::vector<Operation> operations() {
  const auto others = [](double ranks) { return (ranks - 1) / ranks; };
  const auto one = [](double) { return 1.0; };
  return {
      {"all_to_all", "none",
       [](Rows& r) {
         r.communicator.all_to_all<float>("all_to_all", {r.values.span(), r.counts},
                                          {r.received.span(), r.counts}, 1, r.stream);
       },
       others},
      {"all_gather", "none",
       [](Rows& r) {
         r.communicator.all_gather<float>(
             "all_gather", r.values.span().first(static_cast<std::size_t>(r.counts.front())),
             {r.received.span(), r.counts}, 1, r.stream);
       },
       others},
      {"all_reduce", "sum",
       [](Rows& r) { r.communicator.all_reduce_sum("all_reduce", r.values.span(), r.stream); },
       [=](double ranks) { return 2 * others(ranks); }},
      {"reduce_scatter", "sum",
       [](Rows& r) {
         r.communicator.reduce_scatter_sum<float>("reduce_scatter", {r.values.span(), r.counts},
                                                  r.part(), r.stream);
       },
       others},
      {"broadcast", "none",
       [](Rows& r) { r.communicator.broadcast("broadcast", r.values.span(), 0, r.stream); }, one},
      {"copy", "none", [](Rows& r) { copy<float>(r.values.span(), r.received.span(), r.stream); },
       one},
  };
}

// Seconds of one call: the median over rounds of the mean of a round, which begins and ends on all
// ranks together. On GPUs too the clock tells them, as it is the one that all ranks have: a round
// is long enough for its ends not to count.
double time_of(const Operation& operation, Rows& rows) {
  constexpr int kRounds = 9;
  constexpr double kRoundSeconds = 0.02;
  const auto round = [&](std::int64_t calls) {
    rows.communicator.barrier("round begins");
    const double begin = benchmark_seconds();
    for (std::int64_t i = 0; i < calls; ++i) operation.run(rows);
    rows.stream.synchronize();
    rows.communicator.barrier("round ends");
    return (benchmark_seconds() - begin) / static_cast<double>(calls);
  };
  round(2);
  std::vector<std::int64_t> calls{static_cast<std::int64_t>(kRoundSeconds / round(2)) + 1};
  calls.front() = rows.communicator.gather_int64("calls", calls.front()).front();
  std::vector<double> times;
  for (int i = 0; i < kRounds; ++i) times.push_back(round(calls.front()));
  return benchmark_median(times);
}

void run_rank(const std::string& only, const Sizes& sizes, Communicator& communicator,
              const Stream& stream) {
  const bool prints = communicator.rank() == 0;
  for (const Operation& operation : operations()) {
    if (!only.empty() && only != operation.name) continue;
    if (prints) {
      fmt::print("# {}, {} ranks\n", operation.name, communicator.size());
      fmt::print("#{:>11} {:>13} {:>9} {:>7} {:>11} {:>8} {:>8}\n", "size", "count", "type",
                 "redop", "time", "algbw", "busbw");
      fmt::print("#{:>11} {:>13} {:>9} {:>7} {:>11} {:>8} {:>8}\n", "(B)", "(elements)", "", "",
                 "(us)", "(GB/s)", "(GB/s)");
    }
    for (std::int64_t size = sizes.least; size <= sizes.most; size *= sizes.factor) {
      const auto float_bytes = static_cast<std::int64_t>(sizeof(float));
      const std::int64_t count = size / float_bytes / communicator.size() * communicator.size();
      if (count == 0) continue;
      Rows rows(communicator, count, stream);
      const double seconds = time_of(operation, rows);
      const auto bytes = static_cast<double>(count * float_bytes);
      const double algorithm = bytes / seconds * 1e-9;
      if (!prints) continue;
      fmt::print("{:>12} {:>13} {:>9} {:>7} {:>11.2f} {:>8.2f} {:>8.2f}\n", count * float_bytes,
                 count, "float", operation.redop, seconds * 1e6, algorithm,
                 algorithm * operation.bus_factor(communicator.size()));
      std::fflush(stdout);
    }
  }
}

}  // namespace
}  // namespace serrate

// exchange_benchmark [--ranks N] [--device cpu|cuda] [--op NAME] [--min-bytes N] [--max-bytes N]
// [--factor N]
int main(int argc, char** argv) {
  using namespace serrate;  // NOLINT(google-build-using-namespace): main is outside of it
  BenchmarkArguments arguments(argc, argv);
  const auto ranks = static_cast<int>(arguments.integer("--ranks", 2));
  const std::string device = arguments.text("--device", "cpu");
  const std::string operation = arguments.text("--op", "");
  Sizes sizes;
  sizes.least = arguments.integer("--min-bytes", sizes.least);
  sizes.most = arguments.integer("--max-bytes", sizes.most);
  sizes.factor = std::max<std::int64_t>(arguments.integer("--factor", sizes.factor), 2);
  arguments.finish();
  return run_benchmark_ranks(ranks, device, [&](Communicator& c, const Stream& stream) {
    run_rank(operation, sizes, c, stream);
  });
}
