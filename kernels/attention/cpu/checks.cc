#include "kernels/attention/cpu/checks.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <string_view>
#include <utility>
#include <variant>

#include "kernels/attention/require.h"

namespace serrate {
namespace {

void check_offsets(std::string_view name, std::span<const std::int64_t> offsets) {
  require(offsets.front() >= 0, "{} begin at {} (tokens are counted from 0)", name,
          offsets.front());
  const auto fall = std::ranges::is_sorted_until(offsets);
  require(fall == offsets.end(), "{} must not fall (the entry of sequence {} does)", name,
          fall - offsets.begin());
}

struct MaskLengths {
  const AttentionView& args;

  void self_attention() const {
    require(std::ranges::equal(args.query_offsets, args.key_offsets),
            "this mask is for self-attention: key_offsets must equal query_offsets");
  }
  void operator()(const FullMask&) const {}
  void operator()(const WindowMask&) const {}
  void operator()(const PrefixMask&) const {}
  void operator()(const DocumentMask& mask) const {
    self_attention();
    const std::span offsets(mask.document_offsets.device_data(), mask.document_offsets.size());
    require(offsets.front() <= args.query_offsets.front() &&
                offsets.back() >= args.query_offsets.back() && std::ranges::is_sorted(offsets),
            "document_offsets must rise and cover all tokens");
  }
  void operator()(const HstuMask& mask) const {
    self_attention();
    for (std::int64_t s = 0; s < batch_size_of(args); ++s) {
      const std::int64_t targets = targets_of(mask, s);
      require(targets >= 0 && targets <= num_keys_of(args, s),
              "num_targets of sequence {} is {} (must be between 0 and its length, {})", s, targets,
              num_keys_of(args, s));
    }
  }
  void operator()(const RowMask& mask) const {
    require(std::ssize(mask.ranges) >= 4 * end_of_queries(args),
            "a row mask's ranges must be [num_query_tokens, 2, 2]");
  }
  void operator()(const ColumnMask& mask) const {
    require(std::ssize(mask.ranges) >= 4 * args.key_offsets.back(),
            "a column mask's ranges must be [num_key_tokens, 2, 2]");
  }
  void operator()(const BlockMask& mask) const {
    for (std::int64_t s = 0; s < batch_size_of(args); ++s) {
      const BitMaskView& bits = bit_mask(mask, s);
      require(
          queries_of(args, s).count <= bits.num_queries && num_keys_of(args, s) <= bits.num_keys,
          "a block mask must be as large as its sequences (sequence {} is not)", s);
    }
  }
};

// What a view needs to hold tokens.
struct Tokens {
  std::int64_t count, num_heads, head_dim;
};

Tokens tokens_of_queries(const AttentionView& args) {
  const std::int64_t first = args.num_shared_queries > 0 ? 0 : args.query_offsets.front();
  return {end_of_queries(args) - first, args.num_heads, args.head_dim};
}

Tokens tokens_of_keys(const AttentionView& args) {
  return {args.key_offsets.back() - args.key_offsets.front(), args.num_key_heads, args.head_dim};
}

void check_input(std::string_view name, const InputHeads& heads, const Tokens& tokens) {
  require(tokens.count == 0 || heads.device_data, "{} has no data for {} tokens", name,
          tokens.count);
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

void check_output(std::string_view name, const OutputHeads& heads, const Tokens& tokens) {
  check_input(name, heads, tokens);
  if (tokens.count == 0) return;
  std::array axes = {Axis{heads.token_stride, tokens.count},
                     Axis{heads.head_stride, tokens.num_heads}};
  std::int64_t reach = tokens.head_dim;
  require(!overlapping_axis(axes, reach),
          "{}'s rows lie on one another (token_stride {}, head_stride {}, {} tokens of {} heads); "
          "strides are in elements, and rows of {}",
          name, heads.token_stride, heads.head_stride, tokens.count, tokens.num_heads,
          tokens.head_dim);
}

void check_tables(const AttentionView& args) {
  require(std::ranges::is_sorted(args.position_table.boundaries),
          "position_table's boundaries must rise");
  require(std::ranges::is_sorted(args.time_table.boundaries), "time_table's boundaries must rise");
  const std::int64_t query_times = std::ssize(args.query_times);
  const std::int64_t key_times = std::ssize(args.key_times);
  require(args.time_table.values.empty() ||
              (query_times >= end_of_queries(args) && key_times >= args.key_offsets.back()),
          "time_table needs query_times of {} tokens and key_times of {} (they have {} and {})",
          end_of_queries(args), args.key_offsets.back(), query_times, key_times);
}

// Values of the gradient that several pairs share are summed in their order only if a stride of 0
// says so.
void check_bias_gradient(const AttentionView& forward, const CpuAttentionPlan& plan) {
  const BiasView& bias = forward.bias;
  std::array axes = {
      Axis{bias.sequence_stride, batch_size_of(forward)}, Axis{bias.head_stride, forward.num_heads},
      Axis{bias.query_stride, plan.longest_queries}, Axis{bias.key_stride, plan.longest_keys}};
  for (auto& [stride, size] : axes) size = stride == 0 ? 1 : size;
  std::int64_t reach = 1;
  const Axis* overlap = overlapping_axis(axes, reach);
  require(!overlap,
          "d_bias's blocks lie on one another (a stride of {} where {} values are in use); use "
          "a stride of 0 to share a block",
          overlap ? overlap->first : 0, reach);
}

}  // namespace

void check_lengths(const AttentionView& args) {
  check_offsets("key_offsets", args.key_offsets);
  if (args.num_shared_queries == 0) check_offsets("query_offsets", args.query_offsets);
  std::visit(MaskLengths{args}, args.mask);
}

void check_tokens(const AttentionView& args, const CpuAttentionPlan& plan) {
  check_input("q", args.q, tokens_of_queries(args));
  check_input("k", args.k, tokens_of_keys(args));
  check_input("v", args.v, tokens_of_keys(args));
  check_output("out", args.out, tokens_of_queries(args));
  const std::int64_t lse = std::ssize(args.lse), end = end_of_queries(args);
  require(lse == 0 || lse / args.num_heads >= end,
          "lse has {} values (must be [num_heads, num_query_tokens], {} x {})", lse, args.num_heads,
          end);
  check_tables(args);
  require(!args.has_dropout || std::ssize(args.token_ids) >= end,
          "dropout has {} token_ids for {} queries", args.token_ids.size(), end);
  check_partials(args, plan.schedule.num_partials());
}

void check_tokens(const AttentionBackwardView& args, const CpuAttentionPlan& plan) {
  const AttentionView& forward = args.forward;
  check_tokens(forward, plan);
  require(!forward.lse.empty() || forward.activation != AttentionActivation::kSoftmax ||
              end_of_queries(forward) == 0,
          "backward needs the lse of its forward");
  Tokens d_q = tokens_of_queries(forward);
  check_input("d_out", args.d_out, d_q);
  if (forward.num_shared_queries > 0) d_q.count = forward.num_shared_queries;
  check_output("d_q", args.d_q, d_q);
  check_output("d_k", args.d_k, tokens_of_keys(forward));
  check_output("d_v", args.d_v, tokens_of_keys(forward));
  if (args.d_bias) check_bias_gradient(forward, plan);
}

}  // namespace serrate
