#include "serrate/kernels/attention.h"

#include "kernels/attention_batch.h"
#include "kernels/cpu_only.h"
#include "serrate/error.h"

namespace serrate {
namespace {

void check_table(const AttentionForward& args, const AttentionTable& table) {
  const std::int64_t entries = std::ssize(table.boundaries) + 1, values = std::ssize(table.values);
  check(values == 0 || values == entries || values == entries * args.num_heads,
        "an attention table must be [num_heads or 1, boundaries + 1]");
  check(entries <= 65536, "an attention table has at most 65536 entries a head");
}

void check_forward(const AttentionForward& args) {
  check(args.num_heads >= 1, "attention needs at least one head");
  check(args.num_key_heads >= 0 && args.num_heads % num_key_heads_of(args) == 0,
        "num_key_heads must divide num_heads");
  check(args.head_dim >= 1 && args.head_dim <= kMaxHeadDim, "head_dim must be 1 to 256");
  check(
      !args.key_offsets.empty() && args.num_shared_queries >= 0 &&
          args.query_offsets.size() == (args.num_shared_queries > 0 ? 0 : args.key_offsets.size()),
      "query_offsets and key_offsets must both have batch_size + 1 entries, query_offsets none "
      "where the queries are shared");
  check(std::ssize(args.lse) % args.num_heads == 0 &&
            (args.lse.empty() || std::ssize(args.lse) / args.num_heads >= end_of_queries(args)),
        "lse must be [num_heads, num_query_tokens]");
  check(!args.bias.data || args.bias.key_stride == 1 || args.bias.query_stride == 1,
        "a bias must be contiguous along its keys or its queries");
  check_table(args, args.position_table);
  check_table(args, args.time_table);
  check(args.time_table.values.empty() || (std::ssize(args.query_times) >= end_of_queries(args) &&
                                           std::ssize(args.key_times) >= args.key_offsets.back()),
        "attention's time table needs the times of all query and key tokens");
  const DropoutKey& dropout = args.dropout;
  check(dropout.rate >= 0 && dropout.rate < 1, "attention: dropout's rate must be in [0, 1)");
  check(dropout.rate == 0 ||
            (std::ssize(dropout.token_ids) >= end_of_queries(args) && dropout.site < 1u << 16),
        "attention: dropout needs a token id per query and a site below 65536");
}

void check_backward(const AttentionBackward& args) {
  const AttentionForward& forward = args.forward;
  check_forward(forward);
  check(!forward.lse.empty() || forward.activation != AttentionActivation::kSoftmax ||
            end_of_queries(forward) == 0,
        "attention's backward needs the lse of its forward");
  check(!args.d_bias || (forward.bias.data && forward.scale != 0),
        "attention's d_bias needs the forward's bias and a scale other than 0");
  check(forward.scale != 0 || (args.d_position_table.empty() && args.d_time_table.empty()),
        "gradients of attention's tables need a scale other than 0");
  check((args.d_position_table.empty() ||
         args.d_position_table.size() == forward.position_table.values.size()) &&
            (args.d_time_table.empty() ||
             args.d_time_table.size() == forward.time_table.values.size()),
        "gradients of attention's tables must be as large as they are");
}

}  // namespace

void jagged_attention_forward(const AttentionForward& args, const Stream& stream) {
  check_forward(args);
  dispatch_cpu_only(stream.device(), "jagged_attention_forward",
                    [&](auto device) { jagged_attention_forward_on<device()>(args, stream); });
}

void jagged_attention_backward(const AttentionBackward& args, const Stream& stream) {
  check_backward(args);
  dispatch_cpu_only(stream.device(), "jagged_attention_backward",
                    [&](auto device) { jagged_attention_backward_on<device()>(args, stream); });
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
