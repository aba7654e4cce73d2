// The plain twin of the CPU's FlashAttention, in float32 on CUDA's cores: a block takes a tile of
// queries of one head, the keys go by in tiles, and a running maximum and sum for every query keep
// softmax exact.
#include <cmath>
#include <memory>

#include "kernels/attention/cuda/decoding.h"
#include "kernels/attention/cuda/forward_tile.cuh"
#include "kernels/attention/cuda/launch_tiles.cuh"
#include "kernels/attention/cuda/tensor_cores.h"
#include "kernels/attention/cuda/work_list.h"

namespace serrate {
namespace {

template <class Shape>
__device__ void write_queries(const AttentionView& args, const TilePair& at,
                              const Softmax<Shape>& softmax, RowSums<Shape>& out) {
  for_each_row<Shape>([&](int row, int r) {
    const std::int64_t query = at.first_query + row;
    if (!is_softmax(args) || query >= at.queries.count) return;
    const float sum = softmax.sum[r];
    const bool saw_none = sum == 0;
#pragma unroll
    for (float& x : out[r]) x = saw_none ? 0 : x / sum;
    if (args.lse.empty() || threadIdx.x != 0) return;
    const std::int64_t row_of_head =
        at.head * (static_cast<std::int64_t>(args.lse.size()) / args.num_heads);
    args.lse[row_of_head + at.queries.in_out + query] =
        saw_none ? -INFINITY : (softmax.max[r] + log2f(sum)) / kLog2e;
  });
  store_rows<Shape>(out, 1, args.out, at.queries.in_out + at.first_query, at.head,
                    at.queries.count - at.first_query, static_cast<int>(args.head_dim));
}

// One tile of queries after the other for each block.
template <class Shape>
__global__ void __launch_bounds__(kThreadsX* kThreadsY)
    attend(const __grid_constant__ AttentionView args) {
  const ForwardTiles<Shape> tiles;
  const std::int64_t num_tasks = num_query_tiles(args, Shape::kTile) * args.num_heads;
  for (std::int64_t task = blockIdx.x; task < num_tasks; task += gridDim.x) {
    const TilePlace tile = query_tile_at(args, Shape::kTile, task / args.num_heads);
    TilePair at = pair_of(args, tile.sequence, task % args.num_heads);
    at.first_query = tile.first;
    if (at.first_query >= at.queries.count) continue;
    if (decoding_split(args, at.sequence).rows > 0) continue;  // of other kernels
    load_rows<Shape>(args.q, at.queries.in_q + at.first_query, at.head,
                     at.queries.count - at.first_query, static_cast<int>(args.head_dim), tiles.q);
    Softmax<Shape> softmax;
    RowSums<Shape> out;
    set_zero<Shape>(out);
    for (; at.first_key < at.num_keys; at.first_key += Shape::kTile) {
      const unsigned visible = visible_pairs<Shape>(args, at);
      if (__syncthreads_or(visible != 0) == 0) continue;
      add_keys<Shape>(args, at, visible, tiles, softmax, out);
    }
    write_queries<Shape>(args, at, softmax, out);
    __syncthreads();
  }
}

AttentionView call_of(const AttentionForward& args, const Stream& stream) {
  AttentionView view = view_of(args);
  const bool is_plain = !forward_takes_tensor_cores(view, stream);
  view.most_decoding_rows = is_plain ? most_few_rows(args.head_dim) : most_rows(view, stream);
  return view;
}

}  // namespace

// The plain kernels' blocks find their tiles by the offsets; those on tensor cores have a list, and
// so have those that decode. A plan that is made without tokens is for either: its list has
// tasks of more than 64 rows, which plain calls skip.
template <>
AttentionPlan plan_attention_on<DeviceType::kCuda>(const AttentionForward& args,
                                                   const Stream& stream) {
  AttentionView view = view_of(args);
  view.most_decoding_rows = most_rows(view, stream);
  const bool has_tokens =
      args.q.device_data && args.k.device_data && args.v.device_data && args.out.device_data;
  const bool is_plain = !tensor_cores_have(args.head_dim) ||
                        (has_tokens && !forward_takes_tensor_cores(view, stream));
  if (is_plain && !may_decode(view)) return AttentionPlan(plan_key_of(args));
  return {plan_key_of(args), std::make_unique<const CudaAttentionPlan>(
                                 list_work(view, may_take_wgmma_backward(view, stream), stream))};
}

template <>
void jagged_attention_forward_on<DeviceType::kCuda>(const AttentionForward& args,
                                                    const Stream& stream) {
  AttentionView view = call_of(args, stream);
  if (may_decode(view) && !(args.plan && args.plan->on_cuda())) {
    const AttentionPlan plan = plan_attention(args, stream);
    AttentionForward planned = args;
    planned.plan = &plan;
    return jagged_attention_forward_on<DeviceType::kCuda>(planned, stream);
  }
  const std::int64_t needed = may_decode(view) ? args.plan->num_partials() : 0;
  check_partials(view, needed);
  if (forward_takes_tensor_cores(view, stream)) {
    forward_on_tensor_cores(args, stream);
  } else {
    with_tile_shape(args.head_dim, [&](auto shape) {
      using Shape = decltype(shape);
      launch_tiles(attend<Shape>, ForwardTiles<Shape>::kSize, stream, view);
    });
  }
  if (needed == 0) return;
  Buffer<float> partials(args.partials.empty() ? needed : 0, stream);
  if (args.partials.empty())
    view.partials = {partials.device_data(), static_cast<std::size_t>(partials.size())};
  forward_of_decoding(view, args.plan->on_cuda()->list(batch_size_of(view)), stream);
}

template <>
std::int64_t jagged_attention_forward_workspace_on<DeviceType::kCuda>(const AttentionForward& args,
                                                                      const Stream& stream) {
  AttentionView view = call_of(args, stream);
  const bool has_counter =
      forward_takes_tensor_cores(view, stream) && longest_take_wgmma(view, stream);
  const std::int64_t counters = has_counter ? sizeof(Counter) : 0;
  if (!args.partials.empty() || !may_decode(view)) return counters;
  view.most_decoding_rows = most_rows(view, stream);  // as the plan has it
  return counters + most_partial_rows(view, stream) * (args.head_dim + 2) *
                        static_cast<std::int64_t>(sizeof(float));
}

}  // namespace serrate
