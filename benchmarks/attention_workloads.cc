#include "benchmarks/attention_workloads.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <set>
#include <sstream>
#include <utility>

#include "benchmarks/peer_lengths.h"
#include "serrate/error.h"

namespace serrate {
namespace {

using enum WorkloadMask;
using Lengths = std::vector<std::int64_t>;
constexpr auto kSilu = AttentionActivation::kSilu, kSoftmax = AttentionActivation::kSoftmax;

/// Lengths with the density of x^-1.2 in [1, longest], every twentieth 0.
Lengths heavy_tailed_lengths(std::int64_t batch_size, std::int64_t longest) {
  constexpr double kExponent = 1.2 - 1;
  std::mt19937 generator(1);
  Lengths lengths;
  for (std::int64_t i = 0; i < batch_size; ++i) {
    const double uniform = generator() * 0x1.0p-32;
    const double least = std::pow(static_cast<double>(longest), -kExponent);
    const double length = std::pow(1 - uniform * (1 - least), -1 / kExponent);
    lengths.push_back(i % 20 == 19 ? 0 : static_cast<std::int64_t>(length));
  }
  return lengths;
}

/// Makes the batches of a workload within the limits.
struct Maker {
  WorkloadLimits limits;
  std::vector<AttentionWorkload> all = {};

  Lengths lengths(const char* kind, std::int64_t batch_size, std::int64_t longest) const {
    batch_size = std::min(batch_size, limits.sequences);
    longest = std::min(longest, limits.length);
    if (std::string_view(kind) == "heavy-tailed") return heavy_tailed_lengths(batch_size, longest);
    // lognormal_lengths draws 16 at a time.
    Lengths result = lengths_of(kind, (batch_size + 15) / 16 * 16, longest);
    result.resize(static_cast<std::size_t>(batch_size));
    return result;
  }
  AttentionWorkload& self(std::string name, const Lengths& of) {
    return cross(std::move(name), of, of);
  }
  AttentionWorkload& cross(std::string name, Lengths queries, Lengths keys) {
    AttentionWorkload& w = all.emplace_back();
    w.name = std::move(name);
    w.query_lengths = std::move(queries);
    w.key_lengths = std::move(keys);
    return w;
  }
};

/// Generalized dot-product attention (PyTorch's blog, 2026): 1,152 sequences, 4 heads of 128.
void add_w1(Maker& make) {
  const auto add = [&](AttentionWorkload& w, AttentionActivation activation) {
    w.head_dim = 128;
    w.mask = kFull;
    w.activation = activation;
  };
  for (const std::int64_t longest : {256, 1024}) {
    const Lengths half = make.lengths("uniform", 1152, longest);
    add(make.self(fmt::format("W1 uniform {} silu", longest), half), kSilu);
    add(make.self(fmt::format("W1 uniform {}", longest), half), kSoftmax);
    add(make.self(fmt::format("W1 fixed {}", longest), make.lengths("fixed", 1152, longest)),
        kSoftmax);
  }
  const Lengths queries = make.lengths("uniform", 1152, 1024),
                keys = make.lengths("fixed", 1152, 256);
  add(make.cross("W1 uniform 1024 to 256 silu", queries, keys), kSilu);
  add(make.cross("W1 uniform 1024 to 256", queries, keys), kSoftmax);
}

/// The grid of NVIDIA's HSTU kernels: causal, equal lengths, 4 heads or 8.
void add_w2(Maker& make) {
  const auto add = [&](AttentionActivation activation, std::int64_t batch_size, std::int64_t length,
                       std::int64_t head_dim, std::int64_t num_heads = 4) {
    const char* const heads = num_heads == 4 ? "" : " 8 heads";
    AttentionWorkload& w = make.self(fmt::format("W2 {}x{} d{}{}{}", batch_size, length, head_dim,
                                                 heads, activation == kSilu ? " silu" : ""),
                                     make.lengths("fixed", batch_size, length));
    w.num_heads = num_heads;
    w.head_dim = head_dim;
    w.activation = activation;
  };
  for (const std::int64_t length : {128, 256, 512}) {
    add(kSilu, 512, length, 64);
    add(kSoftmax, 512, length, 64);
  }
  add(kSilu, 512, 256, 128);
  add(kSoftmax, 512, 256, 128);
  add(kSoftmax, 512, 256, 256);
  add(kSilu, 128, 2048, 128);
  add(kSilu, 16, 8192, 64);
  add(kSilu, 512, 256, 64, 8);
  add(kSilu, 16, 16384, 64, 8);
}

/// FlashAttention-3's grid: 16 Ki tokens, 2,048 columns.
void add_w3(Maker& make) {
  const auto add = [&](WorkloadMask mask, std::int64_t length, std::int64_t head_dim) {
    AttentionWorkload& w = make.self(fmt::format("W3 {} {} d{}", to_string(mask), length, head_dim),
                                     make.lengths("fixed", 16384 / length, length));
    w.num_heads = 2048 / head_dim;
    w.head_dim = head_dim;
    w.mask = mask;
  };
  for (const std::int64_t length : {512, 2048, 16384}) add(kCausal, length, 128);
  add(kFull, 16384, 128);
  add(kCausal, 16384, 64);
  add(kCausal, 2048, 256);
}

/// Masks of FlashMask: 128 Ki tokens in sequences of 8 Ki, 32 heads of 128.
void add_w4(Maker& make) {
  for (const WorkloadMask mask :
       {kFull, kCausal, kWindow, kPrefix, kDocuments, kFullDocuments, kPrefixDocuments,
        kSharedQuestions, kBlockwise, kGlobalWindow, kQkSparse, kRandomEviction}) {
    AttentionWorkload& w =
        make.self(fmt::format("W4 {}", to_string(mask)), make.lengths("fixed", 16, 8192));
    w.num_heads = 32;
    w.head_dim = 128;
    w.mask = mask;
    w.window = 1024;
    w.globals = 64;
  }
}

/// Masks of Binary Block Masking: 4 sequences, 32 heads of 64.
void add_w5(Maker& make) {
  const auto add = [&](const char* name, WorkloadMask mask, std::int64_t globals) {
    AttentionWorkload& w = make.self(name, make.lengths("fixed", 4, 4096));
    w.num_heads = 32;
    w.mask = mask;
    w.window = 8;
    w.globals = globals;
    w.has_bit_mask = true;
  };
  add("W5 LongFormer window 8", kLongFormer, 0);
  add("W5 LongFormer 2 global", kLongFormer, 2);
  add("W5 packed", kDocuments, 0);
  add("W5 packed, prefixes", kPrefixDocuments, 0);
}

/// Histories of users: causal self-attention, long tails.
void add_w6(Maker& make) {
  make.self("W6 lognormal 50", make.lengths("lognormal", 8192, 8 * 50));
  make.self("W6 lognormal 100", make.lengths("lognormal", 4096, 8 * 100));
  make.self("W6 lognormal 200", make.lengths("lognormal", 4096, 8 * 200));
  make.self("W6 lognormal 500", make.lengths("lognormal", 1024, 8 * 500));
  make.self("W6 heavy-tailed 4096", make.lengths("heavy-tailed", 4096, 4096));
}

/// Pooling by attention: few queries, of each sequence or of all, over jagged keys.
void add_w7(Maker& make) {
  const Lengths keys = make.lengths("lognormal", 1024, 8 * 500);
  for (const auto& [queries, shared] : {std::pair{1, true}, {16, true}, {64, true}, {32, false}}) {
    AttentionWorkload& w =
        make.cross(fmt::format("W7 {} {} queries", queries, shared ? "shared" : "own"),
                   make.lengths("fixed", 1024, queries), keys);
    w.head_dim = 128;
    w.mask = kFull;
    w.shares_queries = shared;
  }
}

/// Candidates over the history of their user.
void add_w8(Maker& make) {
  for (const std::int64_t candidates : {64, 512}) {
    make.cross(fmt::format("W8 {} candidates", candidates), make.lengths("fixed", 256, candidates),
               make.lengths("lognormal", 256, 8 * 500))
        .mask = kFull;
  }
}

/// Decoding: few queries over long histories, forward, 8 heads of 128.
void add_w9(Maker& make) {
  const auto add = [&](const char* kind, std::int64_t batch_size, std::int64_t queries,
                       std::int64_t keys) {
    AttentionWorkload& w = make.cross(
        fmt::format("W9 {} {}x{}x{}", kind, batch_size, queries, keys),
        make.lengths("fixed", batch_size, queries), make.lengths(kind, batch_size, keys));
    w.num_heads = 8;
    w.head_dim = 128;
    w.mask = kFull;
    w.has_backward = false;
  };
  add("fixed", 64, 1, 2048);
  add("fixed", 8, 1, 16384);
  add("fixed", 1, 1, 131072);
  add("lognormal", 256, 4, 8192);
}

/// FlashAttention-3's grid in e4m3, forward.
void add_w10(Maker& make) {
  const auto add = [&](WorkloadMask mask, std::int64_t length, std::int64_t head_dim) {
    AttentionWorkload& w =
        make.self(fmt::format("W10 e4m3 {} {} d{}", to_string(mask), length, head_dim),
                  make.lengths("fixed", 16384 / length, length));
    w.num_heads = 2048 / head_dim;
    w.head_dim = head_dim;
    w.mask = mask;
    w.has_backward = false;
    w.is_fp8 = true;
  };
  for (const std::int64_t head_dim : {64, 128, 256}) {
    for (const WorkloadMask mask : {kFull, kCausal}) add(mask, 8192, head_dim);
  }
  add(kCausal, 512, 128);
}

}  // namespace

std::int64_t AttentionWorkload::num_queries() const {
  return std::reduce(query_lengths.begin(), query_lengths.end());
}
std::int64_t AttentionWorkload::num_keys() const {
  return std::reduce(key_lengths.begin(), key_lengths.end());
}

std::vector<AttentionWorkload> attention_workloads(const std::string& names,
                                                   const WorkloadLimits& limits) {
  constexpr void (*kAdd[])(Maker&) = {add_w1, add_w2, add_w3, add_w4, add_w5,
                                      add_w6, add_w7, add_w8, add_w9, add_w10};
  std::set<std::string> wanted;
  std::istringstream list(names);
  for (std::string name; std::getline(list, name, ',');) wanted.insert(name);
  const bool all = wanted.erase("all") > 0;
  Maker make{limits};
  for (std::size_t i = 0; i < std::size(kAdd); ++i) {
    const bool is_named = wanted.erase(fmt::format("W{}", i + 1)) > 0;
    if (all || is_named) kAdd[i](make);
  }
  if (!wanted.empty() || make.all.empty()) {
    throw usage_error(
        fmt::format("--workload {} (there is no such workload): choose all, or some of "
                    "W1,W2,...,W10",
                    names));
  }
  return make.all;
}

}  // namespace serrate
