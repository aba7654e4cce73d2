// Attention of few queries to long histories, forward, every query seeing all keys of its sequence.
// A JSON line a case: its floor is reading keys and values once, and `share` is how near it is to
// the speed at which memory of that size is read, measured in turn with it. Medians; ms is of
// wall-clock time, the rest of processor time per thread, which other processes disturb less.
//
//   decoding_benchmark [threads ...]          float32; 1 and 2 unless given
//   decoding_benchmark --device cuda [...]    float32 and bfloat16, with the plan made beforehand;
//                                             `share` is that of benchmark_device.h's floor

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <ctime>
#include <string>
#include <string_view>
#include <vector>

#include "benchmarks/benchmark_arguments.h"
#include "benchmarks/benchmark_device.h"
#include "benchmarks/peer_lengths.h"
#include "serrate/buffer.h"
#include "serrate/kernels/attention.h"

namespace serrate {
namespace {

struct Histories {
  std::string_view kind;
  std::int64_t batch_size, queries, longest;
};

struct Heads {
  std::int64_t num_heads, num_key_heads, head_dim;
};

// In the order of the peer's script.
constexpr Histories kHistories[] = {
    {"fixed", 64, 1, 2048},      {"fixed", 8, 1, 16384}, {"fixed", 1, 1, 131072},
    {"lognormal", 256, 1, 8192}, {"fixed", 16, 4, 8192}, {"fixed", 16, 16, 2048},
    {"fixed", 1, 512, 4096},
};
constexpr Heads kHeads[] = {{4, 4, 64}, {8, 8, 128}, {8, 1, 64}, {8, 1, 128}};

// Dense [num_tokens, num_heads, head_dim] arguments of one case.
template <typename T>
class Decoding {
 public:
  Decoding(const Histories& histories, const Heads& heads, const Stream& stream)
      : heads_(heads), stream_(stream) {
    std::vector<std::int64_t> query_offsets = {0}, key_offsets = {0};
    for (const std::int64_t keys :
         lengths_of(histories.kind, histories.batch_size, histories.longest)) {
      query_offsets.push_back(query_offsets.back() + histories.queries);
      key_offsets.push_back(key_offsets.back() + keys);
    }
    const std::int64_t queries = query_offsets.back(), keys = key_offsets.back();
    query_offsets_ = Buffer<std::int64_t>(query_offsets, stream_);
    key_offsets_ = Buffer<std::int64_t>(key_offsets, stream_);
    q_ = random(queries * heads.num_heads * heads.head_dim);
    out_ = Buffer<T>(q_.size(), stream_);
    k_ = random(keys * heads.num_key_heads * heads.head_dim);
    v_ = random(k_.size());
    partials_ = Buffer<float>(plan_attention(args(), stream_).num_partials(), stream_);
    flops_ = 4.0 * static_cast<double>(heads.num_heads * heads.head_dim * keys * histories.queries);
  }

  AttentionPlan plan() { return plan_attention(args(), stream_); }
  // Without a plan it is made anew: lengths of histories differ from call to call.
  void forward(const AttentionPlan* plan = nullptr) {
    AttentionForward call = args();
    call.plan = plan;
    jagged_attention_forward(call, stream_);
  }
  double flops() const { return flops_; }
  double bytes() const { return static_cast<double>(k_.bytes() + v_.bytes()); }

 private:
  Buffer<T> random(std::int64_t size) {
    std::vector<T> values(static_cast<std::size_t>(size));
    for (T& x : values) {
      state_ = state_ * 6364136223846793005u + 1442695040888963407u;
      x = T(static_cast<float>(state_ >> 40) * 0x1p-23f - 1);
    }
    return Buffer<T>(values, stream_);
  }
  DeviceHeads<T> view(Buffer<T>& x, std::int64_t num_heads) const {
    return {x.device_data(), num_heads * heads_.head_dim, heads_.head_dim};
  }
  AttentionForward args() {
    return {.q = view(q_, heads_.num_heads),
            .k = view(k_, heads_.num_key_heads),
            .v = view(v_, heads_.num_key_heads),
            .out = view(out_, heads_.num_heads),
            .lse = {},
            .query_offsets = query_offsets_.span(),
            .key_offsets = key_offsets_.span(),
            .num_heads = heads_.num_heads,
            .num_key_heads = heads_.num_key_heads,
            .head_dim = heads_.head_dim,
            .scale = 1 / std::sqrt(static_cast<float>(heads_.head_dim)),
            .mask = FullMask{},
            .partials = partials_.span()};
  }

  Heads heads_;
  const Stream& stream_;
  std::uint64_t state_ = 1;
  Buffer<std::int64_t> query_offsets_, key_offsets_;
  Buffer<T> q_, k_, v_, out_;
  Buffer<float> partials_;
  double flops_ = 0;
};

// Reads zeros; memchr has the widest loads of the machine.
void read(const Buffer<char>& zeros, int threads) {
  const char* bytes = zeros.device_data();
  const auto size = static_cast<std::size_t>(zeros.bytes());
  std::size_t found = 0;
#pragma omp parallel for num_threads(threads) reduction(+ : found)
  for (int t = 0; t < threads; ++t) {
    const std::size_t begin = size * t / threads, end = size * (t + 1) / threads;
    found += std::memchr(bytes + begin, 1, end - begin) != nullptr;
  }
  if (found > 0) fmt::print("zeros are not what they were\n");
}

std::string name_of(const Histories& histories, const Heads& heads) {
  return fmt::format("{} {}x{}x{} {}/{}x{}", histories.kind, histories.batch_size,
                     histories.queries, histories.longest, heads.num_heads, heads.num_key_heads,
                     heads.head_dim);
}

struct Seconds {
  std::vector<double> wall, processor;
};

template <typename F>
void time(int num_threads, Seconds& seconds, F&& f) {
  const std::clock_t start_of_processor = std::clock();
  const auto start = std::chrono::steady_clock::now();
  f();
  const std::chrono::duration<double> wall = std::chrono::steady_clock::now() - start;
  seconds.wall.push_back(wall.count());
  seconds.processor.push_back(static_cast<double>(std::clock() - start_of_processor) /
                              CLOCKS_PER_SEC / num_threads);
}

double median(std::vector<double> x) {
  std::nth_element(x.begin(), x.begin() + x.size() / 2, x.end());
  return x[x.size() / 2];
}

void run(const Histories& histories, const Heads& heads, int num_threads) {
  const Stream stream(Device::cpu(), num_threads);
  Decoding<float> decoding(histories, heads, stream);
  const auto zeros = Buffer<char>::zeros(static_cast<std::int64_t>(decoding.bytes()), stream);
  Seconds forward, reading;
  double total = 0;
  for (int i = 0; i < 11 || (total < 0.4 && i < 200); ++i) {
    time(num_threads, reading, [&] { read(zeros, num_threads); });
    time(num_threads, forward, [&] { decoding.forward(); });
    total += forward.wall.back();
  }
  const double used = median(forward.processor), floor = median(reading.processor);
  fmt::print(
      "{{\"case\": \"{}\", \"threads\": {}, \"ms\": {:.3f}, \"cpu_ms\": {:.3f}, "
      "\"GB_per_s\": {:.1f}, \"read_GB_per_s\": {:.1f}, \"share\": {:.2f}, \"GFLOP_per_s\": "
      "{:.1f}}}\n",
      name_of(histories, heads), num_threads, median(forward.wall) * 1e3, used * 1e3,
      decoding.bytes() / used / 1e9, decoding.bytes() / floor / 1e9, floor / used,
      decoding.flops() / used / 1e9);
  std::fflush(stdout);
}

template <typename T>
void run_on(BenchmarkDevice& device, const Histories& histories, const Heads& heads,
            Precision precision) {
  Decoding<T> decoding(histories, heads, device.stream());
  const AttentionPlan plan = decoding.plan();
  const double used = device.median_seconds([&] { decoding.forward(&plan); });
  const double floor = device.floor_seconds({decoding.bytes(), decoding.flops(), precision});
  fmt::print(
      "{{\"case\": \"{}\", \"precision\": \"{}\", \"ms\": {:.4f}, \"GB_per_s\": {:.1f}, "
      "\"share\": {:.2f}, \"GFLOP_per_s\": {:.1f}}}\n",
      name_of(histories, heads), precision == Precision::kBf16 ? "bf16" : "fp32", used * 1e3,
      decoding.bytes() / used / 1e9, floor / used, decoding.flops() / used / 1e9);
  std::fflush(stdout);
}

template <typename F>
void for_each_case(F&& f) {
  for (const Heads& heads : kHeads) {
    for (const Histories& histories : kHistories) f(histories, heads);
  }
}

}  // namespace
}  // namespace serrate

int main(int argc, char** argv) {
  using namespace serrate;  // NOLINT(google-build-using-namespace): main is outside of it
  BenchmarkArguments arguments(argc, argv);
  BenchmarkDevice device(arguments);
  if (device.on_gpu()) {
    arguments.finish();
    for_each_case([&](const Histories& histories, const Heads& heads) {
      run_on<float>(device, histories, heads, Precision::kFp32);
      run_on<BFloat16>(device, histories, heads, Precision::kBf16);
    });
    return 0;
  }
  arguments.pass_on(argc, argv);
  std::vector<int> threads;
  for (int i = 1; i < argc; ++i) threads.push_back(std::stoi(argv[i]));
  if (threads.empty()) threads = {1, 2};
  for (const int num_threads : threads) {
    for_each_case([&](const Histories& histories, const Heads& heads) {
      run(histories, heads, num_threads);
    });
  }
}
