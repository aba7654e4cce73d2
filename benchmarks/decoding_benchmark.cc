// Attention of few queries to long histories, forward, float32, every query seeing all keys of its
// sequence. A JSON line a case: its floor is reading keys and values once, and `share` is how near
// it is to the speed at which memory of that size is read, measured in turn with it. Medians; ms is
// of wall-clock time, the rest of processor time per thread, which other processes disturb less.
//
//   decoding_benchmark [threads ...]   1 and 2 unless given

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <ctime>
#include <string>
#include <string_view>
#include <vector>

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
class Decoding {
 public:
  Decoding(const Histories& histories, const Heads& heads, int num_threads)
      : heads_(heads), stream_(Device::cpu(), num_threads) {
    for (const std::int64_t keys :
         lengths_of(histories.kind, histories.batch_size, histories.longest)) {
      query_offsets_.push_back(query_offsets_.back() + histories.queries);
      key_offsets_.push_back(key_offsets_.back() + keys);
    }
    const std::int64_t queries = query_offsets_.back(), keys = key_offsets_.back();
    q_ = random(queries * heads.num_heads * heads.head_dim);
    out_ = Buffer<float>(q_.size(), stream_);
    k_ = random(keys * heads.num_key_heads * heads.head_dim);
    v_ = random(k_.size());
    zeros_ = Buffer<float>::zeros(k_.size() + v_.size(), stream_);
    partials_ = Buffer<float>(plan_attention(args(), stream_).num_partials(), stream_);
    flops_ = 4.0 * static_cast<double>(heads.num_heads * heads.head_dim * keys * histories.queries);
  }

  // With the plan made anew: lengths of histories differ from call to call.
  void forward() { jagged_attention_forward(args(), stream_); }
  // Reads as much as forward() does; memchr has the widest loads of the machine.
  void read() const {
    const auto* bytes = reinterpret_cast<const char*>(zeros_.device_data());
    const auto size = static_cast<std::size_t>(zeros_.bytes());
    const int threads = stream_.num_threads();
    std::size_t found = 0;
#pragma omp parallel for num_threads(threads) reduction(+ : found)
    for (int t = 0; t < threads; ++t) {
      const std::size_t begin = size * t / threads, end = size * (t + 1) / threads;
      found += std::memchr(bytes + begin, 1, end - begin) != nullptr;
    }
    if (found > 0) fmt::print("zeros are not what they were\n");
  }
  double flops() const { return flops_; }
  double bytes() const { return static_cast<double>(k_.bytes() + v_.bytes()); }

 private:
  Buffer<float> random(std::int64_t size) {
    Buffer<float> result(size, stream_);
    for (float& x : host_view(result.span(), stream_)) {
      state_ = state_ * 6364136223846793005u + 1442695040888963407u;
      x = static_cast<float>(state_ >> 40) * 0x1p-23f - 1;
    }
    return result;
  }
  DeviceHeads<float> view(Buffer<float>& x, std::int64_t num_heads) const {
    return {x.device_data(), num_heads * heads_.head_dim, heads_.head_dim};
  }
  AttentionForward args() {
    return {.q = view(q_, heads_.num_heads),
            .k = view(k_, heads_.num_key_heads),
            .v = view(v_, heads_.num_key_heads),
            .out = view(out_, heads_.num_heads),
            .lse = {},
            .query_offsets = on_cpu(query_offsets_),
            .key_offsets = on_cpu(key_offsets_),
            .num_heads = heads_.num_heads,
            .num_key_heads = heads_.num_key_heads,
            .head_dim = heads_.head_dim,
            .scale = 1 / std::sqrt(static_cast<float>(heads_.head_dim)),
            .mask = FullMask{},
            .partials = partials_.span()};
  }

  Heads heads_;
  Stream stream_;
  std::uint64_t state_ = 1;
  std::vector<std::int64_t> query_offsets_ = {0}, key_offsets_ = {0};
  Buffer<float> q_, k_, v_, out_, zeros_, partials_;
  double flops_ = 0;
};

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
  Decoding decoding(histories, heads, num_threads);
  Seconds forward, read;
  double total = 0;
  for (int i = 0; i < 11 || (total < 0.4 && i < 200); ++i) {
    time(num_threads, read, [&] { decoding.read(); });
    time(num_threads, forward, [&] { decoding.forward(); });
    total += forward.wall.back();
  }
  const double used = median(forward.processor), floor = median(read.processor);
  fmt::print(
      "{{\"case\": \"{} {}x{}x{} {}/{}x{}\", \"threads\": {}, \"ms\": {:.3f}, \"cpu_ms\": {:.3f}, "
      "\"GB_per_s\": {:.1f}, \"read_GB_per_s\": {:.1f}, \"share\": {:.2f}, \"GFLOP_per_s\": "
      "{:.1f}}}\n",
      histories.kind, histories.batch_size, histories.queries, histories.longest, heads.num_heads,
      heads.num_key_heads, heads.head_dim, num_threads, median(forward.wall) * 1e3, used * 1e3,
      decoding.bytes() / used / 1e9, decoding.bytes() / floor / 1e9, floor / used,
      decoding.flops() / used / 1e9);
  std::fflush(stdout);
}

}  // namespace
}  // namespace serrate

int main(int argc, char** argv) {
  std::vector<int> threads;
  for (int i = 1; i < argc; ++i) threads.push_back(std::stoi(argv[i]));
  if (threads.empty()) threads = {1, 2};
  for (const int num_threads : threads) {
    for (const auto& heads : serrate::kHeads) {
      for (const auto& histories : serrate::kHistories) {
        serrate::run(histories, heads, num_threads);
      }
    }
  }
}
