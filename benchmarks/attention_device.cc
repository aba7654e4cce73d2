#include "benchmarks/attention_device.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <chrono>
#include <cstdio>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "benchmarks/attention_run.h"
#include "serrate/error.h"

namespace serrate {
namespace {

/// One direction of a workload on a GPU.
struct AttentionTime {
  double seconds = 0, flops = 0, bytes = 0, floor_seconds = 0;

  std::string text() const {
    return fmt::format("{:9.3f} ms {:7.1f} TFLOP/s {:7.0f} GB/s {:5.1f} %", seconds * 1e3,
                       flops / seconds * 1e-12, bytes / seconds * 1e-9,
                       100 * floor_seconds / seconds);
  }
  std::string json() const {
    return fmt::format("{{\"ms\": {}, \"flops\": {}, \"bytes\": {}, \"floor_ms\": {}}}",
                       seconds * 1e3, flops, bytes, floor_seconds * 1e3);
  }
};

/// The ranges of keys of every query, where sequences are alike and the mask is one of ranges.
std::vector<std::int64_t> key_ranges(const AttentionWorkload& w) {
  if (w.mask == WorkloadMask::kFull || w.mask == WorkloadMask::kCausal) return {};
  std::vector<std::int64_t> ranges;
  const std::int64_t length = w.key_lengths.front();
  for (std::int64_t i = 0; i < length; ++i) {
    const KeyRanges seen = w.keys_of(i, length);
    ranges.insert(ranges.end(), {seen.begin[0], seen.end[0], seen.begin[1], seen.end[1]});
  }
  return ranges;
}

/// Times a workload: rounds of plan, forward and backward, `times` of the device or what a second
/// has room for, and at least 3. Prints a line; the JSON line has what a peer needs for the same
/// batch.
template <typename T>
void time_workload(BenchmarkDevice& device, const AttentionWorkload& w, std::ofstream& json) {
  AttentionRun<T> run(w, device.stream());
  const PairCounts pairs = count_pairs(w);
  const double flops = 4 * pairs.visible * static_cast<double>(w.num_heads * w.head_dim);
  std::vector<double> plans, forwards, backwards, quantizings;
  const auto forward_once = [&] { w.is_fp8 ? run.forward_fp8() : run.forward(); };
  forward_once();
  if (w.has_backward) run.backward();
  device.stream().synchronize();
  const auto start = std::chrono::steady_clock::now();
  while (
      std::ssize(forwards) < device.times() &&
      (forwards.size() < 3 || std::chrono::steady_clock::now() - start < std::chrono::seconds(1))) {
    plans.push_back(device.seconds([&] { run.plan(); }));
    forwards.push_back(device.seconds(forward_once));
    if (w.is_fp8) quantizings.push_back(device.seconds([&] { run.quantize(); }));
    if (w.has_backward) backwards.push_back(device.seconds([&] { run.backward(); }));
  }
  const auto time_of = [&](std::vector<double>& seconds, double passes, double bytes) {
    // Products of e4m3 go at twice the rate of bfloat16's.
    const bool is_fp32 = sizeof(T) == sizeof(float) && !w.is_fp8;
    const auto precision = is_fp32 ? Precision::kFp32 : Precision::kBf16;
    const double rate = w.is_fp8 ? 2 : 1;
    std::ranges::nth_element(seconds, seconds.begin() + std::ssize(seconds) / 2);
    AttentionTime time{seconds[seconds.size() / 2], passes * flops, bytes};
    time.floor_seconds = device.floor_seconds({bytes, time.flops / rate, precision});
    return time;
  };
  const AttentionTime forward =
      time_of(forwards, 1, w.is_fp8 ? run.fp8_bytes() : run.forward_bytes());
  std::optional<AttentionTime> quantizing;
  if (w.is_fp8) quantizing = time_of(quantizings, 0, run.quantize_bytes());
  std::optional<AttentionTime> backward;
  if (w.has_backward) backward = time_of(backwards, 2.5, run.backward_bytes());
  const double plan_ms = time_of(plans, 0, 0).seconds * 1e3;
  const double in_tiles = pairs.visible > 0 ? pairs.in_tiles / pairs.visible : 0;
  fmt::print("{:32} {:4.2f} | plan {:6.3f} ms | forward {} | backward {}\n", w.name, in_tiles,
             plan_ms, forward.text(), backward ? backward->text() : "-");
  if (quantizing) {
    AttentionTime both{forward.seconds + quantizing->seconds, forward.flops,
                       forward.bytes + quantizing->bytes,
                       forward.floor_seconds + quantizing->floor_seconds};
    fmt::print("{:32}      | quantising {:6.3f} ms | with it {}\n", "", quantizing->seconds * 1e3,
               both.text());
  }
  std::fflush(stdout);
  json << fmt::format(
      "{{\"name\": \"{}\", \"type\": \"{}\", \"num_heads\": {}, \"head_dim\": {}, \"mask\": "
      "\"{}\", \"window\": {}, \"silu_divisor\": {}, \"shares_queries\": {}, "
      "\"tile_pairs_of_visible\": {}, \"megabytes\": {}, \"plan_ms\": {}, \"quantize\": {}, "
      "\"forward\": {}, "
      "\"backward\": {}, "
      "\"query_lengths\": [{}], \"key_lengths\": [{}], \"key_ranges\": [{}], \"forgotten_at\": "
      "[{}]}}\n",
      w.name, w.is_fp8 ? "e4m3" : to_string(data_type_of<T>()), w.num_heads, w.head_dim,
      to_string(w.mask), w.window,
      w.activation == AttentionActivation::kSilu ? std::ranges::max(w.key_lengths) : 0,
      w.shares_queries, in_tiles, run.extra_bytes() * 1e-6, plan_ms,
      quantizing ? quantizing->json() : "null", forward.json(),
      backward ? backward->json() : "null", fmt::join(w.query_lengths, ","),
      fmt::join(w.key_lengths, ","), fmt::join(key_ranges(w), ","),
      fmt::join(w.forgotten_at(w.key_lengths.front()), ","));
  json.flush();
}

/// Leaves out workloads in e4m3, with a line that says why, on a GPU that does not have it.
template <typename T>
void leave_out_fp8_if_missing(std::vector<AttentionWorkload>& workloads,
                              const BenchmarkDevice& device) {
  try {
    AttentionWorkload smallest;
    smallest.query_lengths = smallest.key_lengths = {1};
    smallest.is_fp8 = true;
    const AttentionRun<T> quantizes(smallest, device.stream());
  } catch (const Error& error) {
    if (std::erase_if(workloads, [](const AttentionWorkload& w) { return w.is_fp8; }) > 0) {
      fmt::print("W10 not run: {}\n", error.what());
    }
  }
}

template <typename T>
void time_workloads(BenchmarkDevice& device, BenchmarkArguments& arguments) {
  const std::string names = arguments.text("--workload", "all");
  WorkloadLimits limits;
  limits.sequences = arguments.integer("--sequences", limits.sequences);
  limits.length = arguments.integer("--longest", limits.length);
  std::ofstream json(arguments.text("--json", "/dev/null"));
  arguments.finish();
  std::vector<AttentionWorkload> workloads = attention_workloads(names, limits);
  // Asked for by its name, it is an error where it is missing.
  if (names.find("W10") == std::string::npos) leave_out_fp8_if_missing<T>(workloads, device);
  const double gibibyte = 0x1p30, products = 1e12;
  const auto precision = sizeof(T) == sizeof(float) ? Precision::kFp32 : Precision::kBf16;
  fmt::print("copy {:.0f} GB/s, product {:.1f} TFLOP/s\n",
             gibibyte / device.floor_seconds({.bytes = gibibyte}) * 1e-9,
             products / device.floor_seconds({.flops = products, .precision = precision}) * 1e-12);
  fmt::print("{:32} {:>4}   ms, TFLOP/s of visible pairs, GB/s, share of the floor\n", "workload",
             "tile");
  for (const AttentionWorkload& w : workloads) time_workload<T>(device, w, json);
}

}  // namespace

void run_workloads(BenchmarkDevice& device, BenchmarkArguments& arguments) {
  if (arguments.flag("--bf16")) return time_workloads<BFloat16>(device, arguments);
  time_workloads<float>(device, arguments);
}

}  // namespace serrate
