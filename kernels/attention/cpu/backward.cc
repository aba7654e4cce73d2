// The backward of FlashAttention: probabilities come back from scores and log-sum-exp, tile by
// tile. A task owns the gradients that it yields and adds to d_k and d_v in place, so every sum has
// one order. Five products a tile: scores = k q^T, d_v += p d_out, d_p = v d_out^T,
// d_k += d_scores q, d_q += d_scores^T k, with d_scores = p (d_p - sum of d_out * out).
#include <algorithm>
#include <cstdint>

#include "kernels/attention/cpu/backward_tasks.h"
#include "kernels/attention/cpu/checks.h"
#include "kernels/attention/cpu/plan.h"
#include "kernels/attention/cpu/scratch.h"
#include "kernels/attention/cpu/tiles.h"
#include "kernels/simd/targets.h"
#include "serrate/buffer.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/attention/cpu/backward.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/attention/cpu/rows-inl.h"
#include "kernels/attention/cpu/scores-inl.h"
#include "kernels/simd/pack-inl.h"
#include "kernels/simd/rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace serrate::HWY_NAMESPACE {

// p = exp(scores - lse), 0 where invisible.
void probabilities(BackwardScratch& scratch) {
  const hn::ScalableTag<float> d;
  for (std::int64_t q = 0; q < scratch.mask.queries; q += kLanes) {
    const TileRange read = scratch.mask.read[q / kMaskBlock];
    const auto lse = hn::Load(d, scratch.lse + q);
    float* p = scratch.p + read.begin * kTileQueries + q;
    for (std::int64_t r = read.begin; r < read.end; ++r, p += kTileQueries) {
      hn::Store(Exp2(d, hn::Sub(hn::Load(d, p), lse)), d, p);
    }
  }
}

// d_scores = p (d_p - delta) in place of d_p, which need not have a value where p is 0.
void score_gradients(BackwardScratch& scratch) {
  const hn::ScalableTag<float> d;
  for (std::int64_t q = 0; q < scratch.mask.queries; q += kLanes) {
    const TileRange read = scratch.mask.read[q / kMaskBlock];
    const auto delta = hn::Load(d, scratch.delta + q);
    for (std::int64_t r = read.begin; r < read.end; ++r) {
      const auto p = hn::Load(d, scratch.p + r * kTileQueries + q);
      float* ds = scratch.d_scores + r * kTileQueries + q;
      const auto d_score = hn::Mul(p, hn::Sub(hn::Load(d, ds), delta));
      hn::Store(hn::IfThenZeroElse(hn::Eq(p, hn::Zero(d)), d_score), d, ds);
    }
  }
}

// A task in one of the heads that share its keys.
struct HeadTask {
  const BackwardCall& call;
  const BackwardTask& part;
  std::int64_t head;
  std::int64_t sequence = part.sequence, key_head = part.key_head;
  const AttentionView& forward() const { return call.args.forward; }
  // This task's share of a table's gradient.
  float* share(float* gradient, const TableView& table) const {
    return gradient ? gradient + (sequence * forward().num_heads + head) * num_entries(table)
                    : nullptr;
  }
};

// What a tile of queries needs of every tile of keys.
struct QueryTile {
  std::int64_t first, count;
  Tile<const float> q, d_out;
};

QueryTile load_query_tile(const HeadTask& task, std::int64_t query, std::int64_t queries,
                          BackwardScratch& scratch) {
  const AttentionView& forward = task.forward();
  const SequenceQueries all = queries_of(forward, task.sequence);
  const std::int64_t token = all.in_out + query, dim = forward.head_dim;
  const Tile<const float> q = load_rows(forward.q, all.in_q + query, task.head, queries, dim,
                                        RowEnds::kWholeVectors, scratch.q);
  const Tile<const float> d_out = load_rows(task.call.args.d_out, token, task.head, queries, dim,
                                            RowEnds::kWholeVectors, scratch.d_out);

  transpose_rows(q, queries, dim, forward.scale * score_factor(forward.activation),
                 {scratch.q_transposed, kTileQueries});
  transpose_rows(d_out, queries, dim, forward.scale, {scratch.d_out_transposed, kTileQueries});
  std::fill_n(scratch.lse, kTileQueries, 0.0f);
  std::fill_n(scratch.delta, kTileQueries, 0.0f);
  if (forward.activation == AttentionActivation::kSoftmax) {
    const float* lse =
        &forward.lse[task.head * (std::ssize(forward.lse) / forward.num_heads) + token];
    const Tile<const float> out =
        load_rows(forward.out, token, task.head, queries, dim, RowEnds::kAsTheyAre, scratch.d_q);
    for (std::int64_t i = 0; i < queries; ++i) {
      // A query that sees no key: exp(score - infinity) is the 0 it needs.
      scratch.lse[i] = lse[i] == -kInfinity ? kInfinity : lse[i] * kLog2e;
      scratch.delta[i] = forward.scale * dot(d_out.row(i), out.row(i), dim);
    }
  }
  return {query, queries, q, d_out};
}

// How a pair of tiles adds to gradients: the first overwrites.
struct AddTo {
  Into d_keys, d_q;
};

// d_scores are those of scores that include the scale.
void bias_gradients(const HeadTask& task, const TilePlace& place, Tile<float> d_scores,
                    BackwardScratch& scratch) {
  const AttentionView& forward = task.forward();
  float* d_position = task.share(task.call.d_position, forward.position_table);
  float* d_time = task.share(task.call.d_time, forward.time_table);
  if (d_position || d_time) {
    add_table_gradients(forward, place, scratch.mask, 1 / forward.scale, d_scores,
                        scratch.diagonals, d_position, d_time);
  }
  if (task.call.args.d_bias) {
    add_bias_gradient(forward.bias, task.call.args.d_bias, place, scratch.mask, 1 / forward.scale,
                      {scratch.bias, kTileQueries}, d_scores);
  }
}

// Adds the share of a pair of tiles to the gradients, d_q's in scratch.
void backward_tile(const HeadTask& task, const QueryTile& queries, std::int64_t first_key,
                   const AddTo& into, BackwardScratch& scratch) {
  const AttentionView& forward = task.forward();
  const TileMask& mask = scratch.mask;
  const std::int64_t token = forward.key_offsets[task.sequence] + first_key, keys = mask.keys;
  const std::int64_t dim = forward.head_dim, padded_dim = round_up_to_lanes(dim);
  const std::int64_t query_lanes = round_up_to_lanes(queries.count);
  const Tile<float> p{scratch.p, kTileQueries}, d_scores{scratch.d_scores, kTileQueries};
  const Tile<float> transposed{scratch.bias, kTileQueries};
  const Tile<const float> k =
      load_rows(forward.k, token, task.key_head, keys, dim, RowEnds::kWholeVectors, scratch.k);
  const Tile<const float> v =
      load_rows(forward.v, token, task.key_head, keys, dim, RowEnds::kAsTheyAre, scratch.v);
  const Tile<float> d_k = rows_of(view_as<float>(task.call.d_k), token, task.key_head);
  const Tile<float> d_v = rows_of(view_as<float>(task.call.d_v), token, task.key_head);
  const auto sum_of = [&](const Tile<float>& gradient, float* copy) {
    // Another task's is not to be read.
    return task.part.yields_d_keys ? whole_vectors(gradient, keys, dim, copy) : gradient;
  };
  const Tile<float> d_k_sum = sum_of(d_k, scratch.d_k), d_v_sum = sum_of(d_v, scratch.d_v);
  const TilePlace place{task.sequence, task.head, queries.first, first_key};

  multiply<Left::kAsIs>(keys, query_lanes, k, {scratch.q_transposed, kTileQueries}, p,
                        Into::kOverwrite, scores_extent(mask, dim), scratch.ahead);
  finish_scores(forward, place, mask, transposed, scratch.diagonals, p);
  Tile<float> weights = p;
  if (forward.activation == AttentionActivation::kSoftmax) {
    probabilities(scratch);
  } else {  // p is the derivative of the activation
    pointwise_silu<SiluDerivatives::kYes>(forward.silu_divisor, mask, p, d_scores);
    weights = d_scores;
  }
  const bool drops = draw_dropout(forward, place, mask, scratch.kept);
  if (drops) {
    drop(mask, scratch.kept, forward.draw.scale, weights, d_scores);
    weights = d_scores;
  }
  if (task.part.yields_d_keys) {
    multiply<Left::kAsIs>(keys, padded_dim, weights, queries.d_out, d_v_sum, into.d_keys,
                          queries_extent(mask), scratch.ahead);
  }
  multiply<Left::kAsIs>(keys, query_lanes, v, {scratch.d_out_transposed, kTileQueries}, d_scores,
                        Into::kOverwrite, scores_extent(mask, dim), scratch.ahead);
  if (drops) drop(mask, scratch.kept, forward.draw.scale, d_scores, d_scores);
  score_gradients(scratch);
  if (task.part.yields_d_q) {
    bias_gradients(task, place, d_scores, scratch);
    multiply<Left::kTransposed>(queries.count, padded_dim, d_scores, k, {scratch.d_q, padded_dim},
                                into.d_q, keys_extent(mask), scratch.ahead);
  }
  if (!task.part.yields_d_keys) return;
  multiply<Left::kAsIs>(keys, padded_dim, d_scores, queries.q, d_k_sum, into.d_keys,
                        queries_extent(mask), scratch.ahead);
  if (d_k_sum.data != d_k.data) {
    copy_rows(d_k_sum, keys, dim, d_k);
    copy_rows(d_v_sum, keys, dim, d_v);
  }
}

// d_k and d_v of keys that the first tile of queries does not see, so that the others can add.
void zero_keys(const HeadTask& task, std::int64_t begin, std::int64_t end) {
  const AttentionView& forward = task.forward();
  for (const OutputHeads& sum : {task.call.d_k, task.call.d_v}) {
    const HeadsView<float> gradient = view_as<float>(sum);
    for (std::int64_t key = begin; key < end; ++key) {
      std::fill_n(gradient.at(forward.key_offsets[task.sequence] + key, task.key_head),
                  forward.head_dim, 0.0f);
    }
  }
}

// d_q of queries [query, query + count), in scratch, and their share of d_k and d_v.
void backward_queries(const HeadTask& task, std::int64_t query, std::int64_t count, Into d_keys,
                      BackwardScratch& scratch) {
  const QueryTile queries = load_query_tile(task, query, count, scratch);
  const MaskRange& part = task.part.keys;
  const bool zeroes = task.part.yields_d_keys && d_keys == Into::kOverwrite;
  MaskRange& seen = scratch.query_mask.keys;
  task.call.tiles.start(task.sequence, query, count, scratch.query_mask);
  seen = {std::max(seen.begin, part.begin), std::min(seen.end, part.end)};
  AddTo into{d_keys, Into::kOverwrite};
  std::int64_t end_of_last = part.begin;
  for (KeyTile keys; task.call.tiles.next(scratch.query_mask, keys, scratch.mask);
       into.d_q = Into::kAdd) {
    if (zeroes) zero_keys(task, end_of_last, keys.begin);
    end_of_last = keys.begin + scratch.mask.keys;
    backward_tile(task, queries, keys.begin, into, scratch);
  }
  if (zeroes) zero_keys(task, end_of_last, part.end);
  if (into.d_q == Into::kOverwrite) {
    std::fill_n(scratch.d_q, count * round_up_to_lanes(task.forward().head_dim), 0.0f);
  }
}

// d_k and d_v that were summed in workspace, as they are not float32.
void store_keys(const BackwardCall& call, const BackwardTask& task) {
  const AttentionView& forward = call.args.forward;
  const std::int64_t token = forward.key_offsets[task.sequence] + task.keys.begin;
  const auto store = [&](const OutputHeads& sum, const OutputHeads& result) {
    if (result.type == DataType::kFloat32) return;
    store_rows(rows_of(view_as<float>(sum), token, task.key_head), task.keys.end - task.keys.begin,
               forward.head_dim, result, token, task.key_head);
  };
  store(call.d_k, call.args.d_k);
  store(call.d_v, call.args.d_v);
}

void backward_task(const BackwardCall& call, const BackwardTask& task, BackwardScratch& scratch) {
  const AttentionView& forward = call.args.forward;
  const SequenceQueries queries = queries_of(forward, task.sequence);
  const std::int64_t tile = attention_tile(queries.count), group = heads_per_key_head(forward);
  Into d_keys = Into::kOverwrite;
  for (std::int64_t head = task.key_head * group; head < (task.key_head + 1) * group; ++head) {
    const HeadTask head_task{call, task, head};
    if (queries.count == 0 && task.yields_d_keys) {
      zero_keys(head_task, task.keys.begin, task.keys.end);
    }
    for (std::int64_t query = task.queries.begin; query < task.queries.end;
         query += tile, d_keys = Into::kAdd) {
      const std::int64_t count = std::min(tile, task.queries.end - query);
      backward_queries(head_task, query, count, d_keys, scratch);
      if (!task.yields_d_q) continue;
      store_rows({scratch.d_q, round_up_to_lanes(forward.head_dim)}, count, forward.head_dim,
                 call.d_q, queries.in_out + query, head);
    }
  }
  if (task.yields_d_keys) store_keys(call, task);
}

// d_q of shared queries from that of each sequence.
void sum_over_batch(const BackwardCall& call, std::int64_t query, std::int64_t head) {
  const AttentionView& forward = call.args.forward;
  HWY_ALIGN float sum[kMaxHeadDim] = {};
  for (std::int64_t s = 0; s < batch_size_of(forward); ++s) {
    add_row(view_as<float>(call.d_q).at(s * forward.num_shared_queries + query, head), 1,
            forward.head_dim, sum);
  }
  store_rows({sum, kMaxHeadDim}, 1, forward.head_dim, call.args.d_q, query, head);
}

}  // namespace serrate::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace serrate {

HWY_EXPORT(backward_task);
HWY_EXPORT(sum_over_batch);

namespace {

void look_ahead_to(const BackwardCall& call, const BackwardTask& task, RowsAhead& ahead) {
  const AttentionView& args = call.args.forward;
  const SequenceQueries queries = queries_of(args, task.sequence);
  const std::int64_t key = args.key_offsets[task.sequence], dim = args.head_dim;
  const std::int64_t keys = num_keys_of(args, task.sequence);
  const std::int64_t head = task.key_head * heads_per_key_head(args);
  ahead.add(args.q, queries.in_q, queries.count, head, dim);
  for (const InputHeads& x : {call.args.d_out, InputHeads(args.out)}) {
    ahead.add(x, queries.in_out, queries.count, head, dim);
  }
  for (const InputHeads& x : {args.k, args.v, InputHeads(call.d_k), InputHeads(call.d_v)}) {
    ahead.add(x, key, keys, task.key_head, dim);
  }
  ahead.add(call.d_q, queries.in_out, queries.count, head, dim);
}

}  // namespace

template <>
void jagged_attention_backward_on<DeviceType::kCpu>(const AttentionBackward& on_device,
                                                    const Stream& stream) {
  check_host_may_read(stream);
  const AttentionBackwardView args = view_of(on_device);
  const AttentionView& forward = args.forward;
  const CpuAttentionPlan& plan = on_device.forward.plan->on_cpu();
  check_tokens(args, plan);
  const AttentionTiles tiles(forward, plan.columns);
  Buffer<BackwardScratch> buffer(stream.num_threads(), stream);
  const auto scratch = host_view(buffer.span(), stream);
  const BackwardWorkspace sizes = backward_workspace(args);
  Buffer<float> workspace(sizes.size(), stream);
  const BackwardCall call = backward_call(workspace.device_data(), args, tiles);
  if (call.d_position) std::fill_n(call.d_position, sizes.d_position, 0.0f);
  if (call.d_time) std::fill_n(call.d_time, sizes.d_time, 0.0f);

  const bool looks_ahead = outgrows_cache(forward);
  for_each_backward_task(args, plan, stream,
                         [&](const BackwardTask& task, const BackwardTask* next, int thread) {
                           BackwardScratch& of_thread = scratch[thread];
                           of_thread.ahead.clear();
                           if (looks_ahead && next) look_ahead_to(call, *next, of_thread.ahead);
                           HWY_DYNAMIC_DISPATCH(backward_task)(call, task, of_thread);
                         });
#pragma omp parallel for collapse(2) num_threads(stream.num_threads())
  for (std::int64_t query = 0; query < forward.num_shared_queries; ++query) {
    for (std::int64_t head = 0; head < forward.num_heads; ++head) {
      HWY_DYNAMIC_DISPATCH(sum_over_batch)(call, query, head);
    }
  }
  if (call.d_position) {
    sum_shares(forward, call.d_position, args.d_position_table, forward.position_table, stream);
  }
  if (call.d_time) {
    sum_shares(forward, call.d_time, args.d_time_table, forward.time_table, stream);
  }
}

template <>
std::int64_t jagged_attention_backward_workspace_on<DeviceType::kCpu>(const AttentionBackward& args,
                                                                      const Stream& stream) {
  const AttentionBackwardView view = view_of(args);
  check_tokens(view, args.forward.plan->on_cpu());
  return static_cast<std::int64_t>(sizeof(BackwardScratch)) * stream.num_threads() +
         static_cast<std::int64_t>(sizeof(float)) * backward_workspace(view).size();
}

}  // namespace serrate
#endif  // HWY_ONCE
