#include "serrate/kernels/attention.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <string_view>
#include <utility>

#include "kernels/attention/batch.h"
#include "kernels/cpu_only.h"
#include "serrate/error.h"

namespace serrate {
namespace {

template <typename... Args>
void require(bool holds, fmt::format_string<Args...> message, Args&&... args) {
  if (!holds) throw Error("attention: " + fmt::format(message, std::forward<Args>(args)...));
}

void check_offsets(std::string_view name, std::span<const std::int64_t> offsets) {
  require(offsets.front() >= 0, "{} begin at {} (tokens are counted from 0)", name,
          offsets.front());
  const auto fall = std::ranges::is_sorted_until(offsets);
  require(fall == offsets.end(), "{} must not fall (the entry of sequence {} does)", name,
          fall - offsets.begin());
}

// What a view needs to hold tokens.
struct Tokens {
  std::int64_t count, num_heads, head_dim;
};

Tokens tokens_of_queries(const AttentionForward& args) {
  const std::int64_t count = args.num_shared_queries > 0
                                 ? args.num_shared_queries * batch_size_of(args)
                                 : args.query_offsets.back() - args.query_offsets.front();
  return {count, args.num_heads, args.head_dim};
}

Tokens tokens_of_keys(const AttentionForward& args) {
  return {args.key_offsets.back() - args.key_offsets.front(), num_key_heads_of(args),
          args.head_dim};
}

void check_input(std::string_view name, const InputHeads& view, const Tokens& tokens) {
  require(tokens.count == 0 || view.data, "{} has no data for {} tokens", name, tokens.count);
}

using Axis = std::pair<std::int64_t, std::int64_t>;  // stride, size

// The axis whose stride is within what those of smaller strides reach, the last of which lie
// together in `reach` elements; null: every element is one of its own.
template <std::size_t kAxes>
const Axis* overlapping_axis(std::array<Axis, kAxes>& axes, std::int64_t& reach) {
  for (auto& [stride, size] : axes) stride = std::abs(stride);
  std::ranges::sort(axes);
  for (const Axis& axis : axes) {
    if (axis.second <= 1) continue;
    if (axis.first < reach) return &axis;
    reach += axis.first * (axis.second - 1);
  }
  return nullptr;
}

void check_output(std::string_view name, const OutputHeads& view, const Tokens& tokens) {
  check_input(name, view, tokens);
  if (tokens.count == 0) return;
  std::array axes = {Axis{view.token_stride, tokens.count},
                     Axis{view.head_stride, tokens.num_heads}};
  std::int64_t reach = tokens.head_dim;
  require(!overlapping_axis(axes, reach),
          "{}'s rows lie on one another (token_stride {}, head_stride {}, {} tokens of {} heads); "
          "strides are in elements, and rows of {}",
          name, view.token_stride, view.head_stride, tokens.count, tokens.num_heads,
          tokens.head_dim);
}

void check_bias(const AttentionBias& bias) {
  require(!bias.data || bias.key_stride == 1 || bias.query_stride == 1,
          "a bias must be contiguous along its keys or its queries (key_stride {}, query_stride "
          "{}); give one of them stride 1",
          bias.key_stride, bias.query_stride);
}

// Values of the gradient that several pairs share are summed in their order only if a stride of 0
// says so.
void check_bias_gradient(const AttentionBackward& args) {
  const AttentionForward& forward = args.forward;
  const AttentionBias& bias = forward.bias;
  require(bias.data, "d_bias needs the bias of the forward");
  std::int64_t queries = 0, keys = 0;
  for (std::int64_t s = 0; s < batch_size_of(forward); ++s) {
    queries = std::max(queries, queries_of(forward, s).count);
    keys = std::max(keys, num_keys_of(forward, s));
  }
  std::array axes = {Axis{bias.sequence_stride, batch_size_of(forward)},
                     Axis{bias.head_stride, forward.num_heads}, Axis{bias.query_stride, queries},
                     Axis{bias.key_stride, keys}};
  for (auto& [stride, size] : axes) size = stride == 0 ? 1 : size;
  std::int64_t reach = 1;
  const Axis* overlap = overlapping_axis(axes, reach);
  require(!overlap,
          "d_bias's blocks lie on one another (a stride of {} where {} values are in use); use "
          "a stride of 0 to share a block",
          overlap ? overlap->first : 0, reach);
}

void check_table(std::string_view name, const AttentionForward& args, const AttentionTable& table) {
  const std::int64_t entries = std::ssize(table.boundaries) + 1, values = std::ssize(table.values);
  if (values == 0) return;
  require(values == entries || values == entries * args.num_heads,
          "{} has {} values (must be [num_heads or 1, boundaries + 1], {} a head)", name, values,
          entries);
  require(std::ranges::is_sorted(table.boundaries), "{}'s boundaries must rise", name);
}

void check_tables(const AttentionForward& args) {
  check_table("position_table", args, args.position_table);
  check_table("time_table", args, args.time_table);
  const std::int64_t query_times = std::ssize(args.query_times);
  const std::int64_t key_times = std::ssize(args.key_times);
  require(args.time_table.values.empty() ||
              (query_times >= end_of_queries(args) && key_times >= args.key_offsets.back()),
          "time_table needs query_times of {} tokens and key_times of {} (they have {} and {})",
          end_of_queries(args), args.key_offsets.back(), query_times, key_times);
}

void check_dropout(const AttentionForward& args) {
  const DropoutKey& dropout = args.dropout;
  require(dropout.rate >= 0 && dropout.rate < 1, "dropout's rate is {} (must be in [0, 1))",
          dropout.rate);
  if (dropout.rate == 0) return;
  require(std::ssize(dropout.token_ids) >= end_of_queries(args),
          "dropout has {} token_ids for {} queries", dropout.token_ids.size(),
          end_of_queries(args));
  require(dropout.site < 1u << 16 && args.num_heads <= 1 << 16,
          "dropout's site is {} with {} heads (its counter has 16 bits for each)", dropout.site,
          args.num_heads);
}

void check_sizes(const AttentionForward& args) {
  require(args.num_heads >= 1, "num_heads is {} (must be at least 1)", args.num_heads);
  require(args.num_key_heads >= 0 && args.num_heads % num_key_heads_of(args) == 0,
          "num_key_heads, {}, must divide num_heads, {}", args.num_key_heads, args.num_heads);
  require(args.head_dim >= 1 && args.head_dim <= kMaxHeadDim, "head_dim is {} (must be 1 to {})",
          args.head_dim, kMaxHeadDim);
  require(args.num_shared_queries >= 0, "num_shared_queries is {}", args.num_shared_queries);
  require(
      !args.key_offsets.empty() &&
          args.query_offsets.size() == (args.num_shared_queries > 0 ? 0 : args.key_offsets.size()),
      "query_offsets has {} entries and key_offsets {} (both must have batch_size + 1, "
      "query_offsets none where the queries are shared)",
      args.query_offsets.size(), args.key_offsets.size());
  check_offsets("key_offsets", args.key_offsets);
  if (args.num_shared_queries == 0) check_offsets("query_offsets", args.query_offsets);
  require(std::isfinite(args.scale), "scale is {}", args.scale);
  require(args.activation == AttentionActivation::kSoftmax ||
              (std::isfinite(args.silu_divisor) && args.silu_divisor != 0),
          "silu_divisor is {} (HSTU divides by the longest sequence that the model is made for)",
          args.silu_divisor);
}

void check_forward(const AttentionForward& args) {
  check_sizes(args);
  check_input("q", args.q, tokens_of_queries(args));
  check_input("k", args.k, tokens_of_keys(args));
  check_input("v", args.v, tokens_of_keys(args));
  check_output("out", args.out, tokens_of_queries(args));
  const std::int64_t lse = std::ssize(args.lse);
  require(lse % args.num_heads == 0 && (lse == 0 || lse / args.num_heads >= end_of_queries(args)),
          "lse has {} values (must be [num_heads, num_query_tokens], {} x {})", lse, args.num_heads,
          end_of_queries(args));
  check_bias(args.bias);
  check_tables(args);
  check_dropout(args);
}

void check_backward(const AttentionBackward& args) {
  const AttentionForward& forward = args.forward;
  check_forward(forward);
  require(!forward.lse.empty() || forward.activation != AttentionActivation::kSoftmax ||
              end_of_queries(forward) == 0,
          "backward needs the lse of its forward");
  Tokens d_q = tokens_of_queries(forward);
  check_input("d_out", args.d_out, d_q);
  if (forward.num_shared_queries > 0) d_q.count = forward.num_shared_queries;
  check_output("d_q", args.d_q, d_q);
  check_output("d_k", args.d_k, tokens_of_keys(forward));
  check_output("d_v", args.d_v, tokens_of_keys(forward));
  if (args.d_bias) check_bias_gradient(args);
  const std::size_t position = args.d_position_table.size(), time = args.d_time_table.size();
  require(position == 0 || position == forward.position_table.values.size(),
          "d_position_table has {} values and position_table {}", position,
          forward.position_table.values.size());
  require(time == 0 || time == forward.time_table.values.size(),
          "d_time_table has {} values and time_table {}", time, forward.time_table.values.size());
  require(forward.scale != 0 || (!args.d_bias && position == 0 && time == 0),
          "gradients of biases and tables need a scale other than 0");
}

}  // namespace

void jagged_attention_forward(const AttentionForward& args, const Stream& stream) {
  check_forward(args);
  if (!args.partials.empty()) {
    const std::int64_t needed = jagged_attention_partials(args, stream);
    require(std::ssize(args.partials) >= needed,
            "partials has {} floats for {} (jagged_attention_partials says how many)",
            args.partials.size(), needed);
  }
  dispatch_cpu_only(stream.device(), "jagged_attention_forward",
                    [&](auto device) { jagged_attention_forward_on<device()>(args, stream); });
}

void jagged_attention_backward(const AttentionBackward& args, const Stream& stream) {
  check_backward(args);
  dispatch_cpu_only(stream.device(), "jagged_attention_backward",
                    [&](auto device) { jagged_attention_backward_on<device()>(args, stream); });
}

std::int64_t jagged_attention_partials(const AttentionForward& args, const Stream& stream) {
  check_sizes(args);
  return dispatch_cpu_only(stream.device(), "jagged_attention_forward", [&](auto device) {
    return jagged_attention_partials_on<device()>(args, stream);
  });
}

std::int64_t jagged_attention_forward_workspace(const AttentionForward& args,
                                                const Stream& stream) {
  check_forward(args);
  return dispatch_cpu_only(stream.device(), "jagged_attention_forward", [&](auto device) {
    return jagged_attention_forward_workspace_on<device()>(args, stream);
  });
}

std::int64_t jagged_attention_backward_workspace(const AttentionBackward& args,
                                                 const Stream& stream) {
  check_backward(args);
  return dispatch_cpu_only(stream.device(), "jagged_attention_backward", [&](auto device) {
    return jagged_attention_backward_workspace_on<device()>(args, stream);
  });
}

}  // namespace serrate
