#include "benchmarks/attention_options.h"

#include <fmt/core.h>

#include <functional>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "benchmarks/processor_time.h"
#include "serrate/buffer.h"
#include "serrate/kernels/attention.h"

namespace serrate {
namespace {

constexpr std::int64_t kBatch = 8, kLength = 1024, kHeads = 4, kHeadDim = 64;
constexpr std::int64_t kTokens = kBatch * kLength, kEntries = 64;

struct Inputs {
  Stream stream;
  std::vector<std::int64_t> offsets, ids = std::vector<std::int64_t>(kTokens), boundaries;
  std::vector<float> q, k, v, d_out, out, d_q, d_k, d_v, lse, bias, d_bias, table, d_table;
  std::vector<BFloat16> half[8];  // of the first eight

  Inputs() : lse(kTokens * kHeads), table(kHeads * kEntries), d_table(table.size()) {
    for (std::int64_t s = 0; s <= kBatch; ++s) offsets.push_back(s * kLength);
    std::iota(ids.begin(), ids.end(), 0);
    for (std::int64_t i = 1; i < kEntries; ++i) boundaries.push_back(i * kLength / kEntries);
    std::mt19937 generator(0);
    std::normal_distribution<float> normal;
    std::vector<float>* tokens[] = {&q, &k, &v, &d_out, &out, &d_q, &d_k, &d_v};
    for (std::size_t i = 0; i < std::size(tokens); ++i) {
      tokens[i]->resize(kTokens * kHeads * kHeadDim);
      for (float& x : *tokens[i]) x = normal(generator);
      for (const float x : *tokens[i]) half[i].push_back(BFloat16(x));
    }
    bias.resize(kHeads * kLength * kLength);
    for (float& x : bias) x = normal(generator);
    d_bias.resize(bias.size());
  }
  template <typename T>
  static DeviceHeads<T> view(std::vector<T>& x) {
    return {x.data(), kHeads * kHeadDim, kHeadDim};
  }
  AttentionBackward plain() {
    const AttentionForward forward{.q = view(q),
                                   .k = view(k),
                                   .v = view(v),
                                   .out = view(out),
                                   .lse = on_cpu(lse),
                                   .query_offsets = on_cpu(offsets),
                                   .key_offsets = on_cpu(offsets),
                                   .num_heads = kHeads,
                                   .head_dim = kHeadDim,
                                   .scale = 0.125f};
    return {forward, view(d_out), view(d_q), view(d_k), view(d_v)};
  }
};

struct Option {
  std::string name;
  std::function<void(AttentionBackward&)> set;
  double forward_seconds = std::numeric_limits<double>::infinity();
  double backward_seconds = std::numeric_limits<double>::infinity();
};

std::vector<Option> options_of(Inputs& in) {
  const AttentionBias bias{on_cpu(in.bias), 0, kLength * kLength, kLength, 1};
  const AttentionTable table{on_cpu(in.table), on_cpu(in.boundaries)};
  return {
      {"none", [](AttentionBackward&) {}},
      {"SiLU",
       [](AttentionBackward& a) {
         a.forward.activation = AttentionActivation::kSilu, a.forward.silu_divisor = kLength;
       }},
      {"4 heads share keys", [](AttentionBackward& a) { a.forward.num_key_heads = 1; }},
      {"bfloat16",
       [&in](AttentionBackward& a) {
         a.forward.q = Inputs::view(in.half[0]), a.forward.k = Inputs::view(in.half[1]);
         a.forward.v = Inputs::view(in.half[2]), a.d_out = Inputs::view(in.half[3]);
         a.forward.out = Inputs::view(in.half[4]), a.d_q = Inputs::view(in.half[5]);
         a.d_k = Inputs::view(in.half[6]), a.d_v = Inputs::view(in.half[7]);
       }},
      {"dropout of 0.1",
       [&in](AttentionBackward& a) {
         a.forward.dropout = {.rate = 0.1f, .token_ids = on_cpu(in.ids)};
       }},
      {"bias [heads, N, N]", [bias](AttentionBackward& a) { a.forward.bias = bias; }},
      {"the same with its gradient",
       [bias, &in](AttentionBackward& a) { a.forward.bias = bias, a.d_bias = on_cpu(in.d_bias); }},
      {"table by position with its gradient",
       [table, &in](AttentionBackward& a) {
         a.forward.position_table = table, a.d_position_table = on_cpu(in.d_table);
       }},
      {"table by time with its gradient",
       [table, &in](AttentionBackward& a) {
         a.forward.time_table = table, a.d_time_table = on_cpu(in.d_table);
         a.forward.query_times = a.forward.key_times = on_cpu(in.ids);
       }},
  };
}

}  // namespace

void run_option_cases(int rounds) {
  Inputs inputs;
  std::vector<Option> options = options_of(inputs);
  for (int round = 0; round < rounds; ++round) {
    for (Option& option : options) {
      AttentionBackward args = inputs.plain();
      option.set(args);
      keep_least(option.forward_seconds,
                 [&] { jagged_attention_forward(args.forward, inputs.stream); });
      keep_least(option.backward_seconds, [&] { jagged_attention_backward(args, inputs.stream); });
    }
  }
  for (const Option& option : options) {
    fmt::print(
        "{{\"option\": \"{}\", \"forward_ms\": {:.2f}, \"backward_ms\": {:.2f}, "
        "\"forward_of_none\": {:.3f}, \"backward_of_none\": {:.3f}}}\n",
        option.name, option.forward_seconds * 1e3, option.backward_seconds * 1e3,
        option.forward_seconds / options[0].forward_seconds,
        option.backward_seconds / options[0].backward_seconds);
  }
}

}  // namespace serrate
