// The checks of what the host knows of a call; what only values in its arrays tell is in
// kernels/attention/cpu/checks.cc.
#include "serrate/kernels/attention.h"

#include <cmath>
#include <string_view>
#include <variant>

#include "kernels/attention/checks.h"
#include "kernels/attention/cuda/tensor_cores.h"
#include "kernels/attention/require.h"
#include "kernels/attention/view.h"
#include "serrate/kernels/attention_tensor_cores.h"
#include "src/core/dispatch.h"

namespace serrate {
namespace {

// Throws unless the mask's arrays have as many entries as the batch has sequences.
struct MaskChecks {
  const AttentionForward& args;

  std::int64_t batch_size() const { return std::ssize(args.key_offsets) - 1; }
  void one_a_sequence(DeviceSpan<const std::int64_t> values, std::string_view name) const {
    require(std::ssize(values) == batch_size(),
            "{} has {} entries (must have one per sequence, {})", name, values.size(),
            batch_size());
  }
  void self_attention() const {
    require(args.num_shared_queries == 0, "this mask is for self-attention, not shared queries");
  }
  void operator()(const FullMask&) const {}
  void operator()(const WindowMask& mask) const {
    require(mask.left >= -kUnlimited && mask.left <= kUnlimited && mask.right >= -kUnlimited &&
                mask.right <= kUnlimited,
            "a window reaches at most kUnlimited to each side (left {}, right {})", mask.left,
            mask.right);
  }
  void operator()(const PrefixMask& mask) const {
    one_a_sequence(mask.prefix_lengths, "prefix_lengths");
  }
  void operator()(const DocumentMask& mask) const {
    self_attention();
    require(!mask.document_offsets.empty(), "document_offsets is empty");
    require(mask.right >= 0 && mask.right <= kUnlimited,
            "a document's right is {} (must not be negative)", mask.right);
  }
  void operator()(const HstuMask& mask) const {
    self_attention();
    require(mask.num_contexts >= 0 && mask.target_group_size >= 1 && mask.window >= 0 &&
                mask.full_length >= 0,
            "an HSTU mask needs num_contexts, window, full_length >= 0 and target_group_size >= 1");
    if (!mask.num_targets.empty()) one_a_sequence(mask.num_targets, "num_targets");
  }
  void operator()(const RowMask& mask) const { whole_ranges(mask.ranges, "row"); }
  void operator()(const ColumnMask& mask) const { whole_ranges(mask.ranges, "column"); }
  void whole_ranges(DeviceSpan<const std::int64_t> ranges, std::string_view kind) const {
    require(ranges.size() % 4 == 0, "a {} mask's ranges are [tokens, 2, 2], not {} values", kind,
            ranges.size());
  }
  void operator()(const BlockMask& mask) const {
    require(mask.masks.size() == 1 || std::ssize(mask.masks) == batch_size(),
            "a block mask has {} masks (must have one, or one per sequence, {})", mask.masks.size(),
            batch_size());
  }
};

void check_table(std::string_view name, const AttentionForward& args, const AttentionTable& table) {
  const std::int64_t entries = std::ssize(table.boundaries) + 1, values = std::ssize(table.values);
  require(values == 0 || values == entries || values == entries * args.num_heads,
          "{} has {} values (must be [num_heads or 1, boundaries + 1], {} a head)", name, values,
          entries);
}

void check_dropout(const AttentionForward& args) {
  const DropoutKey& dropout = args.dropout;
  require(dropout.rate >= 0 && dropout.rate < 1, "dropout's rate is {} (must be in [0, 1))",
          dropout.rate);
  require(dropout.rate == 0 || (dropout.site < 1u << 16 && args.num_heads <= 1 << 16),
          "dropout's site is {} with {} heads (its counter has 16 bits for each)", dropout.site,
          args.num_heads);
}

bool are_float32(const AttentionForward& args) {
  const DataType type = DataType::kFloat32;
  return args.q.type == type && args.k.type == type && args.v.type == type && args.out.type == type;
}

// What a plan is made from.
void check_batch(const AttentionForward& args) {
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
  require(args.precision != Precision::kTf32 || are_float32(args),
          "q, k, v and out are not all float32 (which tf32 needs); leave precision at kFp32");
  std::visit(MaskChecks{args}, args.mask);
}

}  // namespace

void check_forward(const AttentionForward& args) {
  check_batch(args);
  require(!args.plan || args.plan->key() == plan_key_of(args),
          "the plan is of another batch, mask, heads or options; give plan_attention those of the "
          "call");
  require(std::isfinite(args.scale), "scale is {}", args.scale);
  require(args.activation == AttentionActivation::kSoftmax ||
              (std::isfinite(args.silu_divisor) && args.silu_divisor != 0),
          "silu_divisor is {} (HSTU divides by the longest sequence that the model is made for)",
          args.silu_divisor);
  require(std::ssize(args.lse) % args.num_heads == 0,
          "lse has {} values (must be [num_heads, num_query_tokens]; there are {} heads)",
          args.lse.size(), args.num_heads);
  const AttentionBias& bias = args.bias;
  require(bias.data.empty() || bias.key_stride == 1 || bias.query_stride == 1,
          "a bias must be contiguous along its keys or its queries (key_stride {}, query_stride "
          "{}); give one of them stride 1",
          bias.key_stride, bias.query_stride);
  check_table("position_table", args, args.position_table);
  check_table("time_table", args, args.time_table);
  check_dropout(args);
}

namespace {

void check_backward(const AttentionBackward& args) {
  const AttentionForward& forward = args.forward;
  check_forward(forward);
  require(args.d_bias.empty() || !forward.bias.data.empty(),
          "d_bias needs the bias of the forward");
  const std::size_t position = args.d_position_table.size(), time = args.d_time_table.size();
  require(position == 0 || position == forward.position_table.values.size(),
          "d_position_table has {} values and position_table {}", position,
          forward.position_table.values.size());
  require(time == 0 || time == forward.time_table.values.size(),
          "d_time_table has {} values and time_table {}", time, forward.time_table.values.size());
  require(forward.scale != 0 || (args.d_bias.empty() && position == 0 && time == 0),
          "gradients of biases and tables need a scale other than 0");
}

// Calls f with the same arguments and, on the CPU, a plan; CUDA makes one where kernels read it.
template <typename F>
decltype(auto) with_plan(const AttentionForward& args, const Stream& stream, F&& f) {
  if (args.plan || stream.device().type != DeviceType::kCpu) return f(args);
  AttentionForward planned = args;
  const AttentionPlan plan = plan_attention(args, stream);
  planned.plan = &plan;
  return f(planned);
}
template <typename F>
decltype(auto) with_plan(const AttentionBackward& args, const Stream& stream, F&& f) {
  return with_plan(args.forward, stream, [&](const AttentionForward& forward) {
    AttentionBackward planned = args;
    planned.forward = forward;
    return f(planned);
  });
}

}  // namespace

AttentionPlan plan_attention(const AttentionForward& args, const Stream& stream) {
  check_batch(args);
  require(args.precision != Precision::kTf32 || stream.device().type != DeviceType::kCpu,
          "the CPU multiplies in fp32 (the precision is tf32); leave precision at kFp32");
  return dispatch_device(stream.device(),
                         [&](auto device) { return plan_attention_on<device()>(args, stream); });
}

void jagged_attention_forward(const AttentionForward& args, const Stream& stream) {
  check_forward(args);
  with_plan(args, stream, [&](const AttentionForward& planned) {
    dispatch_device(stream.device(),
                    [&](auto device) { jagged_attention_forward_on<device()>(planned, stream); });
  });
}

void jagged_attention_backward(const AttentionBackward& args, const Stream& stream) {
  check_backward(args);
  with_plan(args, stream, [&](const AttentionBackward& planned) {
    dispatch_device(stream.device(),
                    [&](auto device) { jagged_attention_backward_on<device()>(planned, stream); });
  });
}

std::int64_t jagged_attention_forward_workspace(const AttentionForward& args,
                                                const Stream& stream) {
  check_forward(args);
  return with_plan(args, stream, [&](const AttentionForward& planned) {
    return dispatch_device(stream.device(), [&](auto device) {
      return jagged_attention_forward_workspace_on<device()>(planned, stream);
    });
  });
}

std::int64_t jagged_attention_backward_workspace(const AttentionBackward& args,
                                                 const Stream& stream) {
  check_backward(args);
  return with_plan(args, stream, [&](const AttentionBackward& planned) {
    return dispatch_device(stream.device(), [&](auto device) {
      return jagged_attention_backward_workspace_on<device()>(planned, stream);
    });
  });
}

bool attention_has_tensor_cores(std::int64_t head_dim, Precision precision) {
  return precision != Precision::kFp32 && tensor_cores_have(head_dim);
}

}  // namespace serrate
