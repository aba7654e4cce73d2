// FlashAttention on vectors: for a tile of queries, the keys go by in tiles, and a running maximum
// and sum for every query keep softmax exact. Two products a tile: scores = k q^T, out += p^T v.
#include <omp.h>

#include <algorithm>
#include <cstdint>

#include "kernels/attention_batch.h"
#include "kernels/attention_mask.h"
#include "kernels/attention_schedule.h"
#include "kernels/attention_scratch.h"
#include "kernels/dropout_draw.h"
#include "kernels/simd_targets.h"
#include "serrate/buffer.h"
#include "serrate/kernels/attention.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/attention_forward_cpu.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "hwy/contrib/math/math-inl.h"
#include "kernels/attention_bias-inl.h"
#include "kernels/attention_dropout-inl.h"
#include "kernels/attention_rows-inl.h"
#include "kernels/attention_tables-inl.h"
#include "kernels/attention_tile-inl.h"
#include "kernels/simd_pack-inl.h"

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

// Scores become weights.
void pointwise_silu(float divisor, ForwardScratch& scratch) {
  const hn::ScalableTag<float> d;
  const auto factor = hn::Set(d, 1 / divisor);
  for (std::int64_t q = 0; q < scratch.mask.queries; q += kLanes) {
    const TileRange read = scratch.mask.read[q / kMaskBlock];
    for (std::int64_t r = read.begin; r < read.end; ++r) {
      float* score = scratch.scores + r * kTileQueries + q;
      hn::Store(hn::Mul(factor, silu(d, hn::Load(d, score)).value), d, score);
    }
  }
  hide(scratch.mask, 0, {scratch.scores, kTileQueries});
}

// A tile of a sequence's queries, in one head.
struct ForwardTile {
  const AttentionForward& args;
  std::int64_t sequence, head, first, count;
  std::int64_t key_head() const { return head / heads_per_key_head(args); }
};

// Rows of out, where to scale them, on their way there.
Tile<float> out_rows(const ForwardTile& tile, std::int64_t token, ForwardScratch& scratch) {
  const OutputHeads& out = tile.args.out;
  if (out.type == HeadsType::kFloat32) return rows_of(out.as<float>(), token, tile.head);
  return {scratch.out, round_up_to_lanes(tile.args.head_dim)};
}

// out = sum of p v / sum of p; lse back in units of e.
void write_softmax(const ForwardTile& tile, std::int64_t token, ForwardScratch& scratch) {
  const AttentionForward& args = tile.args;
  const hn::ScalableTag<float> d;
  for (std::int64_t q = 0; q < tile.count; q += kLanes) {
    const auto sum = hn::Load(d, scratch.sum + q);
    const auto saw_none = hn::Eq(sum, hn::Zero(d));
    const auto lse = hn::Add(hn::Load(d, scratch.max + q), hn::Log2(d, sum));
    hn::Store(hn::IfThenZeroElse(saw_none, hn::Div(hn::Set(d, 1), sum)), d, scratch.factor + q);
    hn::Store(
        hn::IfThenElse(saw_none, hn::Set(d, -kInfinity), hn::Mul(lse, hn::Set(d, 1 / kLog2e))), d,
        scratch.max + q);
  }
  scale_rows({scratch.out, round_up_to_lanes(args.head_dim)}, tile.count, args.head_dim,
             scratch.factor, out_rows(tile, token, scratch));
  if (args.lse.empty()) return;
  std::copy_n(scratch.max, tile.count,
              &args.lse[tile.head * (std::ssize(args.lse) / args.num_heads) + token]);
}

// Adds the share of a tile of keys to out (in scratch).
void forward_keys(const ForwardTile& tile, const DropoutDraw& draw, std::int64_t first_key,
                  Into into, ForwardScratch& scratch) {
  const AttentionForward& args = tile.args;
  const TileMask& mask = scratch.mask;
  const std::int64_t token = args.key_offsets[tile.sequence] + first_key;
  const std::int64_t padded_dim = round_up_to_lanes(args.head_dim);
  const Tile<float> scores{scratch.scores, kTileQueries}, out{scratch.out, padded_dim};
  const Tile<const float> k = load_rows(args.k, token, tile.key_head(), mask.keys, args.head_dim,
                                        RowEnds::kAsTheyAre, scratch.k);
  const Tile<const float> v = load_rows(args.v, token, tile.key_head(), mask.keys, args.head_dim,
                                        RowEnds::kWholeVectors, scratch.v);
  const TilePlace place{tile.sequence, tile.head, tile.first, first_key};
  const float factor = score_factor(args.activation);
  multiply<Left::kAsIs>(mask.keys, round_up_to_lanes(tile.count), k, {scratch.q, kTileQueries},
                        scores, Into::kOverwrite, scores_extent(mask, args.head_dim));
  if (args.bias.data) {
    add_bias(args.bias, place, mask, factor, {scratch.bias, kTileQueries}, scores);
  }
  add_tables(args, place, mask, factor, scratch.tables, scores);
  if (args.activation == AttentionActivation::kSoftmax) {
    hide(mask, -kInfinity, scores);
    online_softmax(scratch);
    if (into == Into::kAdd) scale_rows(out, tile.count, padded_dim, scratch.factor, out);
  } else {
    pointwise_silu(args.silu_divisor, scratch);
  }
  if (args.dropout.rate > 0) {
    const std::int64_t row = queries_of(args, tile.sequence).in_out + tile.first;
    draw_kept(draw, &args.dropout.token_ids[row], tile.head, first_key, mask, scratch.kept);
    drop(mask, scratch.kept, draw.scale, scores, scores);
  }
  multiply<Left::kTransposed>(tile.count, padded_dim, scores, v, out, into, keys_extent(mask));
}

void forward_tile(const ForwardTile& tile, const AttentionTiles& tiles, const DropoutDraw& draw,
                  ForwardScratch& scratch) {
  const AttentionForward& args = tile.args;
  const SequenceQueries queries = queries_of(args, tile.sequence);
  const std::int64_t padded_dim = round_up_to_lanes(args.head_dim);

  transpose_rows(load_rows(args.q, queries.in_q + tile.first, tile.head, tile.count, args.head_dim,
                           RowEnds::kAsTheyAre, scratch.v),
                 tile.count, args.head_dim, args.scale * score_factor(args.activation),
                 {scratch.q, kTileQueries});
  std::fill_n(scratch.max, kTileQueries, -kInfinity);
  std::fill_n(scratch.sum, kTileQueries, 0.0f);
  tiles.start(tile.sequence, tile.first, tile.count, scratch.query_mask);
  Into into = Into::kOverwrite;
  for (KeyTile keys; tiles.next(scratch.query_mask, keys, scratch.mask); into = Into::kAdd) {
    forward_keys(tile, draw, keys.begin, into, scratch);
  }
  if (into == Into::kOverwrite) std::fill_n(scratch.out, tile.count * padded_dim, 0.0f);
  const std::int64_t token = queries.in_out + tile.first;
  const Tile<float> out = {scratch.out, padded_dim};
  if (args.activation == AttentionActivation::kSoftmax) write_softmax(tile, token, scratch);
  if (args.activation != AttentionActivation::kSoftmax || args.out.type != HeadsType::kFloat32) {
    store_rows(out, tile.count, args.head_dim, args.out, token, tile.head);
  }
}

void forward_task(const AttentionForward& args, const AttentionTiles& tiles,
                  const DropoutDraw& draw, const AttentionTask& task, ForwardScratch& scratch) {
  const std::int64_t size = attention_tile(queries_of(args, task.sequence).count);
  for (std::int64_t query = task.query_begin; query < task.query_end; query += size) {
    forward_tile({args, task.sequence, task.head, query, std::min(size, task.query_end - query)},
                 tiles, draw, scratch);
  }
}

}  // namespace serrate::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace serrate {

HWY_EXPORT(forward_task);

template <>
void jagged_attention_forward_on<DeviceType::kCpu>(const AttentionForward& args,
                                                   const Stream& stream) {
  const AttentionSchedule schedule(args, args.num_heads, 4, stream.num_threads());
  const AttentionTiles tiles(args);
  const DropoutDraw draw = dropout_draw(args.dropout);
  Buffer<ForwardScratch> scratch(stream.num_threads(), stream);
#pragma omp parallel for schedule(dynamic) num_threads(stream.num_threads())
  for (std::int64_t t = 0; t < schedule.num_tasks(); ++t) {
    HWY_DYNAMIC_DISPATCH(forward_task)
    (args, tiles, draw, schedule.task(t), scratch.span()[omp_get_thread_num()]);
  }
}

template <>
std::int64_t jagged_attention_forward_workspace_on<DeviceType::kCpu>(const AttentionForward&,
                                                                     const Stream& stream) {
  return static_cast<std::int64_t>(sizeof(ForwardScratch)) * stream.num_threads();
}

}  // namespace serrate
#endif  // HWY_ONCE
