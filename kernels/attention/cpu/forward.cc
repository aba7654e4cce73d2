// FlashAttention on vectors: for a tile of queries, the keys go by in tiles, and a running maximum
// and sum for every query keep softmax exact. Two products a tile: scores = k q^T, out += p^T v.
// Where a long history is cut into chunks (Flash-Decoding: Dao et al. 2023), each leaves its
// maximum, sum and unnormalised out, which are combined in the order of the chunks.
#include <omp.h>

#include <algorithm>
#include <cstdint>

#include "kernels/attention/cpu/checks.h"
#include "kernels/attention/cpu/forward_call.h"
#include "kernels/attention/cpu/plan.h"
#include "kernels/attention/cpu/scratch.h"
#include "kernels/simd/targets.h"
#include "serrate/buffer.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/attention/cpu/forward.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "hwy/contrib/math/math-inl.h"
#include "kernels/attention/cpu/chunks-inl.h"
#include "kernels/attention/cpu/forward_tile-inl.h"
#include "kernels/attention/cpu/scores-inl.h"
#include "kernels/simd/pack-inl.h"

HWY_BEFORE_NAMESPACE();
namespace serrate::HWY_NAMESPACE {

// Scores become probabilities times exp2(max), column by column; max, sum and factor follow.
void online_softmax(ForwardScratch& scratch) {
  const hn::ScalableTag<float> d;
  for (std::int64_t q = 0; q < scratch.mask.queries; q += kLanes) {
    const TileRange read = scratch.mask.read[q / kMaskBlock];
    float* scores = scratch.scores + q;
    const auto old_max = hn::Load(d, scratch.max + q);
    auto max = old_max;
    for (std::int64_t r = read.begin; r < read.end; ++r) {
      max = hn::Max(max, hn::Load(d, scores + r * kTileQueries));
    }
    hn::Store(max, d, scratch.max + q);
    // A query that has seen no key yet: its scores, all -infinity, must give 0.
    const auto shift = hn::IfThenZeroElse(hn::Eq(max, hn::Set(d, -kInfinity)), max);
    const auto factor = Exp2(d, hn::Sub(old_max, shift));
    auto sum = hn::Mul(factor, hn::Load(d, scratch.sum + q));
    for (std::int64_t r = read.begin; r < read.end; ++r) {
      const auto p = Exp2(d, hn::Sub(hn::Load(d, scores + r * kTileQueries), shift));
      hn::Store(p, d, scores + r * kTileQueries);
      sum = hn::Add(sum, p);
    }
    hn::Store(factor, d, scratch.factor + q);
    hn::Store(sum, d, scratch.sum + q);
  }
}

// scores = k q^T
void score_keys(const ForwardTile& tile, std::int64_t first_key, ForwardScratch& scratch) {
  const AttentionView& args = tile.args();
  const TileMask& mask = scratch.mask;
  const Tile<float> scores{scratch.scores, kTileQueries};
  if (tile.task.few_rows) {
    score_few_rows({tile.rows(), tile.rows_per_key_head(), scratch.k},
                   {scratch.q, tile.padded_dim()}, tile.heads_of_keys(args.k, first_key, mask.keys),
                   tile.heads_of_keys(args.v, first_key, mask.keys), scores);
    return;
  }
  const Tile<const float> k =
      load_rows(args.k, args.key_offsets[tile.task.sequence] + first_key, tile.key_head(),
                mask.keys, args.head_dim, RowEnds::kAsTheyAre, scratch.k);
  multiply<Left::kAsIs>(mask.keys, round_up_to_lanes(tile.rows()), k, {scratch.q, kTileQueries},
                        scores, Into::kOverwrite, scores_extent(mask, args.head_dim),
                        scratch.ahead);
}

// out += p^T v
void add_values(const ForwardTile& tile, std::int64_t first_key, Into into,
                ForwardScratch& scratch) {
  const AttentionView& args = tile.args();
  const TileMask& mask = scratch.mask;
  const Tile<float> p{scratch.scores, kTileQueries}, out{scratch.out, tile.padded_dim()};
  if (tile.task.few_rows) {
    const std::int64_t next = first_key + mask.keys;
    add_few_rows({tile.rows(), tile.rows_per_key_head(), scratch.v}, p,
                 tile.heads_of_keys(args.v, first_key, mask.keys),
                 tile.heads_of_keys(args.k, next, num_keys_of(args, tile.task.sequence) - next),
                 out);
    return;
  }
  const Tile<const float> v =
      load_rows(args.v, args.key_offsets[tile.task.sequence] + first_key, tile.key_head(),
                mask.keys, args.head_dim, RowEnds::kWholeVectors, scratch.v);
  multiply<Left::kTransposed>(tile.rows(), tile.padded_dim(), p, v, out, into, keys_extent(mask),
                              scratch.ahead);
}

// Adds the share of a tile of keys to out (in scratch).
void forward_keys(const ForwardTile& tile, std::int64_t first_key, Into into,
                  ForwardScratch& scratch) {
  const AttentionView& args = tile.args();
  const TileMask& mask = scratch.mask;
  const Tile<float> scores{scratch.scores, kTileQueries}, out{scratch.out, tile.padded_dim()};
  const TilePlace place{tile.task.sequence, tile.task.head, tile.first, first_key};
  score_keys(tile, first_key, scratch);
  finish_scores(args, place, mask, {scratch.bias, kTileQueries}, scratch.diagonals, scores);
  if (tile.is_softmax()) {
    online_softmax(scratch);
    if (into == Into::kAdd) scale_rows(out, tile.rows(), out.stride, scratch.factor, out);
  } else {
    pointwise_silu<SiluDerivatives::kNo>(args.silu_divisor, mask, scores, scores);
  }
  if (draw_dropout(args, place, mask, scratch.kept)) {
    drop(mask, scratch.kept, args.draw.scale, scores, scores);
  }
  add_values(tile, first_key, into, scratch);
}

void forward_tile(const ForwardTile& tile, ForwardScratch& scratch) {
  const AttentionTask& task = tile.task;
  QueryTileMask& query_mask = scratch.query_mask;
  prepare_queries(tile, scratch);
  clear_sums(scratch);
  tile.call.tiles.start(task.sequence, tile.first, tile.count, query_mask);
  query_mask.keys = {std::max(query_mask.keys.begin, task.key_begin),
                     std::min(query_mask.keys.end, task.key_end)};
  if (task.few_rows) clear_out(tile, scratch);
  Into into = Into::kOverwrite;
  for (KeyTile keys; tile.call.tiles.next(query_mask, keys, scratch.mask); into = Into::kAdd) {
    if (task.few_rows || task.num_heads > 1) repeat_queries(task.num_heads, scratch.mask);
    forward_keys(tile, keys.begin, into, scratch);
  }
  if (into == Into::kOverwrite) clear_out(tile, scratch);
  if (task.num_chunks > 1) {
    write_partials(tile, scratch);
  } else {
    write_tile(tile, scratch);
  }
}

void forward_task(const ForwardCall& call, const AttentionTask& task, ForwardScratch& scratch) {
  const std::int64_t size = attention_tile(queries_of(call.args, task.sequence).count);
  for (std::int64_t query = task.query_begin; query < task.query_end; query += size) {
    forward_tile({call, task, query, std::min(size, task.query_end - query)}, scratch);
  }
}

void combine_task(const ForwardCall& call, const AttentionTask& task, ForwardScratch& scratch) {
  const ForwardTile tile{call, task, 0, task.query_end};
  combine_chunks(tile, scratch);
  write_tile(tile, scratch);
}

}  // namespace serrate::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace serrate {

HWY_EXPORT(forward_task);
HWY_EXPORT(combine_task);

namespace {

// A task of few rows fetches its own.
void look_ahead_to(const AttentionView& args, const AttentionTask& task, RowsAhead& ahead) {
  if (task.few_rows) return;
  const SequenceQueries queries = queries_of(args, task.sequence);
  const std::int64_t count = task.query_end - task.query_begin;
  const std::int64_t key = args.key_offsets[task.sequence] + task.key_begin;
  const std::int64_t keys = task.key_end - task.key_begin;
  const std::int64_t key_head = task.head / heads_per_key_head(args);
  ahead.add(args.q, queries.in_q + task.query_begin, count, task.head, args.head_dim);
  ahead.add(args.k, key, keys, key_head, args.head_dim);
  ahead.add(args.v, key, keys, key_head, args.head_dim);
  ahead.add(args.out, queries.in_out + task.query_begin, count, task.head, args.head_dim);
}

}  // namespace

template <>
void jagged_attention_forward_on<DeviceType::kCpu>(const AttentionForward& on_device,
                                                   const Stream& stream) {
  check_host_may_read(stream);
  const AttentionView args = view_of(on_device);
  const CpuAttentionPlan& plan = on_device.plan->on_cpu();
  check_tokens(args, plan);
  const AttentionSchedule& schedule = plan.schedule;
  const AttentionTiles tiles(args, plan.columns);
  Buffer<float> own_partials(args.partials.empty() ? schedule.num_partials() : 0, stream);
  const ForwardCall call{args, tiles,
                         args.partials.empty() ? own_partials.device_data() : args.partials.data()};
  Buffer<ForwardScratch> buffer(stream.num_threads(), stream);
  const auto scratch = host_view(buffer.span(), stream);
  const bool looks_ahead = outgrows_cache(args);
#pragma omp parallel for schedule(dynamic) num_threads(stream.num_threads())
  for (std::int64_t t = 0; t < schedule.num_tasks(); ++t) {
    ForwardScratch& of_thread = scratch[omp_get_thread_num()];
    of_thread.ahead.clear();
    const std::int64_t next = t + stream.num_threads();
    if (looks_ahead && next < schedule.num_tasks()) {
      look_ahead_to(args, schedule.task(args, next), of_thread.ahead);
    }
    HWY_DYNAMIC_DISPATCH(forward_task)(call, schedule.task(args, t), of_thread);
  }
  if (schedule.num_partials() == 0) return;
#pragma omp parallel for schedule(dynamic) num_threads(stream.num_threads())
  for (std::int64_t t = 0; t < schedule.num_tasks(); ++t) {
    const AttentionTask task = schedule.task(args, t);
    if (task.num_chunks == 1 || task.chunk > 0) continue;
    HWY_DYNAMIC_DISPATCH(combine_task)(call, task, scratch[omp_get_thread_num()]);
  }
}

template <>
std::int64_t jagged_attention_forward_workspace_on<DeviceType::kCpu>(const AttentionForward& args,
                                                                     const Stream& stream) {
  check_tokens(view_of(args), args.plan->on_cpu());
  const std::int64_t partials = args.partials.empty() ? args.plan->num_partials() : 0;
  return static_cast<std::int64_t>(sizeof(ForwardScratch)) * stream.num_threads() +
         static_cast<std::int64_t>(sizeof(float)) * partials;
}

}  // namespace serrate
#endif  // HWY_ONCE
