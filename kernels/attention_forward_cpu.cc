// FlashAttention on vectors: for a tile of queries, the keys go by in tiles, and a running maximum
// and sum for every query keep softmax exact. Two products a tile: scores = k q^T, out += p^T v.
#include <omp.h>

#include <algorithm>
#include <cstdint>

#include "kernels/attention_mask.h"
#include "kernels/attention_schedule.h"
#include "kernels/attention_scratch.h"
#include "kernels/simd_targets.h"
#include "serrate/buffer.h"
#include "serrate/kernels/attention.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/attention_forward_cpu.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "hwy/contrib/math/math-inl.h"
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

// out = sum of p v / sum of p; lse back in units of e.
void write_tile(const AttentionForward& args, std::int64_t token, std::int64_t head,
                std::int64_t queries, ForwardScratch& scratch) {
  const hn::ScalableTag<float> d;
  for (std::int64_t q = 0; q < queries; q += kLanes) {
    const auto sum = hn::Load(d, scratch.sum + q);
    const auto saw_none = hn::Eq(sum, hn::Zero(d));
    const auto lse = hn::Add(hn::Load(d, scratch.max + q), hn::Log2(d, sum));
    hn::Store(hn::IfThenZeroElse(saw_none, hn::Div(hn::Set(d, 1), sum)), d, scratch.factor + q);
    hn::Store(
        hn::IfThenElse(saw_none, hn::Set(d, -kInfinity), hn::Mul(lse, hn::Set(d, 1 / kLog2e))), d,
        scratch.max + q);
  }
  scale_rows({scratch.out, round_up_to_lanes(args.head_dim)}, queries, args.head_dim,
             scratch.factor, rows_of(args.out, token, head));
  if (args.lse.empty()) return;
  std::copy_n(scratch.max, queries,
              &args.lse[head * (std::ssize(args.lse) / args.num_heads) + token]);
}

void forward_tile(const AttentionForward& args, const AttentionTiles& tiles,
                  const AttentionTask& task, std::int64_t query, std::int64_t queries,
                  ForwardScratch& scratch) {
  const std::int64_t first_query = args.query_offsets[task.sequence] + query;
  const std::int64_t first_key = args.key_offsets[task.sequence];
  const std::int64_t padded_dim = round_up_to_lanes(args.head_dim);
  const Tile<float> q{scratch.q, kTileQueries}, scores{scratch.scores, kTileQueries};
  const Tile<float> out{scratch.out, padded_dim};
  const TileMask& mask = scratch.mask;

  transpose_rows(rows_of(args.q, first_query, task.head), queries, args.head_dim,
                 args.scale * kLog2e, q);
  std::fill_n(scratch.max, kTileQueries, -kInfinity);
  std::fill_n(scratch.sum, kTileQueries, 0.0f);
  tiles.start(task.sequence, query, queries, scratch.query_mask);
  Into into = Into::kOverwrite;
  for (KeyTile keys; tiles.next(scratch.query_mask, keys, scratch.mask);) {
    const std::int64_t token = first_key + keys.begin;
    const Tile<const float> k = rows_of(args.k, token, task.head);
    const Tile<const float> v =
        whole_vectors(rows_of(args.v, token, task.head), mask.keys, args.head_dim, scratch.v);
    multiply<Left::kAsIs>(mask.keys, round_up_to_lanes(queries), k, q, scores, Into::kOverwrite,
                          scores_extent(mask, args.head_dim));
    hide(mask, -kInfinity, scores);
    online_softmax(scratch);
    if (into == Into::kAdd) scale_rows(out, queries, padded_dim, scratch.factor, out);
    multiply<Left::kTransposed>(queries, padded_dim, scores, v, out, into, keys_extent(mask));
    into = Into::kAdd;
  }
  if (into == Into::kOverwrite) std::fill_n(scratch.out, queries * padded_dim, 0.0f);
  write_tile(args, first_query, task.head, queries, scratch);
}

void forward_task(const AttentionForward& args, const AttentionTiles& tiles,
                  const AttentionTask& task, ForwardScratch& scratch) {
  const std::int64_t tile =
      attention_tile(args.query_offsets[task.sequence + 1] - args.query_offsets[task.sequence]);
  for (std::int64_t query = task.query_begin; query < task.query_end; query += tile) {
    forward_tile(args, tiles, task, query, std::min(tile, task.query_end - query), scratch);
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
  const AttentionSchedule schedule(args, 4, stream.num_threads());
  const AttentionTiles tiles(args);
  Buffer<ForwardScratch> scratch(stream.num_threads(), stream);
#pragma omp parallel for schedule(dynamic) num_threads(stream.num_threads())
  for (std::int64_t t = 0; t < schedule.num_tasks(); ++t) {
    HWY_DYNAMIC_DISPATCH(forward_task)
    (args, tiles, schedule.task(t), scratch.span()[omp_get_thread_num()]);
  }
}

}  // namespace serrate
#endif  // HWY_ONCE
