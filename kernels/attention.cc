#include "serrate/kernels/attention.h"

#include "kernels/cpu_only.h"
#include "serrate/error.h"

namespace serrate {
namespace {

void check_forward(const AttentionForward& args) {
  check(args.num_heads >= 1, "attention needs at least one head");
  check(args.head_dim >= 1 && args.head_dim <= kMaxHeadDim, "head_dim must be 1 to 256");
  check(!args.query_offsets.empty() && args.query_offsets.size() == args.key_offsets.size(),
        "query_offsets and key_offsets must both have batch_size + 1 entries");
  check(std::ssize(args.lse) % args.num_heads == 0, "lse must be [num_heads, num_query_tokens]");
}

}  // namespace

void jagged_attention_forward(const AttentionForward& args, const Stream& stream) {
  check_forward(args);
  dispatch_cpu_only(stream.device(), "jagged_attention_forward",
                    [&](auto device) { jagged_attention_forward_on<device()>(args, stream); });
}

void jagged_attention_backward(const AttentionBackward& args, const Stream& stream) {
  check_forward(args.forward);
  dispatch_cpu_only(stream.device(), "jagged_attention_backward",
                    [&](auto device) { jagged_attention_backward_on<device()>(args, stream); });
}

}  // namespace serrate
