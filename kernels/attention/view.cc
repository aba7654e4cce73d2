#include "kernels/attention/view.h"

#include "kernels/attention/require.h"

namespace serrate {
namespace {

template <typename T>
std::span<T> span_of(DeviceSpan<T> values) {
  return {values.device_data(), values.size()};
}

}  // namespace

AttentionView view_of(const AttentionForward& args) {
  const AttentionBias& bias = args.bias;
  const auto table = [](const AttentionTable& from) {
    return TableView{span_of(from.values), span_of(from.boundaries)};
  };
  return {.q = args.q,
          .k = args.k,
          .v = args.v,
          .out = args.out,
          .lse = span_of(args.lse),
          .partials = span_of(args.partials),
          .query_offsets = span_of(args.query_offsets),
          .key_offsets = span_of(args.key_offsets),
          .num_shared_queries = args.num_shared_queries,
          .num_heads = args.num_heads,
          .num_key_heads = num_key_heads_of(args),
          .head_dim = args.head_dim,
          .scale = args.scale,
          .mask = args.mask,
          .activation = args.activation,
          .silu_divisor = args.silu_divisor,
          .bias = {bias.data.empty() ? nullptr : bias.data.device_data(), bias.sequence_stride,
                   bias.head_stride, bias.query_stride, bias.key_stride},
          .position_table = table(args.position_table),
          .time_table = table(args.time_table),
          .query_times = span_of(args.query_times),
          .key_times = span_of(args.key_times),
          .token_ids = span_of(args.dropout.token_ids),
          .in_tf32 = args.precision == Precision::kTf32,
          .has_dropout = args.dropout.rate > 0,
          .draw = dropout_draw(args.dropout)};
}

AttentionBackwardView view_of(const AttentionBackward& args) {
  return {.forward = view_of(args.forward),
          .d_out = args.d_out,
          .d_q = args.d_q,
          .d_k = args.d_k,
          .d_v = args.d_v,
          .d_bias = args.d_bias.empty() ? nullptr : args.d_bias.device_data(),
          .d_position_table = span_of(args.d_position_table),
          .d_time_table = span_of(args.d_time_table)};
}

void check_partials(const AttentionView& args, std::int64_t needed) {
  require(args.partials.empty() || std::ssize(args.partials) >= needed,
          "partials has {} floats for {} (the plan's num_partials() says how many)",
          args.partials.size(), needed);
}

}  // namespace serrate
