// The backward of FlashAttention: probabilities come back from scores and log-sum-exp, tile by
// tile. One task owns a sequence in a head and adds to its d_k and d_v in place, so every sum has
// one order. Five products a tile: scores = k q^T, d_v += p d_out, d_p = v d_out^T,
// d_k += d_scores q, d_q += d_scores^T k, with d_scores = p (d_p - sum of d_out * out).
#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <limits>

#include "kernels/attention_mask.h"
#include "kernels/attention_schedule.h"
#include "kernels/attention_scratch.h"
#include "kernels/simd_targets.h"
#include "serrate/buffer.h"
#include "serrate/error.h"
#include "serrate/kernels/attention.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/attention_backward_cpu.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/attention_tile-inl.h"
#include "kernels/simd_pack-inl.h"

HWY_BEFORE_NAMESPACE();
namespace serrate::HWY_NAMESPACE {

float dot(const float* a, const float* b, std::int64_t n) {
  const hn::ScalableTag<float> d;
  auto sum = hn::Zero(d);
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    sum = hn::MulAdd(hn::LoadU(d, a + i), hn::LoadU(d, b + i), sum);
  float total = hn::GetLane(hn::SumOfLanes(d, sum));
  for (; i < n; ++i) total += a[i] * b[i];
  return total;
}

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

// What a tile of queries needs of every tile of keys.
struct QueryTile {
  std::int64_t count;
  Tile<const float> q, d_out;
};

QueryTile load_query_tile(const AttentionBackward& args, const AttentionTask& task,
                          std::int64_t query, std::int64_t queries, BackwardScratch& scratch) {
  const AttentionForward& forward = args.forward;
  const std::int64_t token = forward.query_offsets[task.sequence] + query;
  const std::int64_t dim = forward.head_dim;
  const Tile<const float> q = rows_of(forward.q, token, task.head);
  const Tile<const float> d_out = rows_of(args.d_out, token, task.head);
  const float* lse =
      &forward.lse[task.head * (std::ssize(forward.lse) / forward.num_heads) + token];

  transpose_rows(q, queries, dim, forward.scale * kLog2e, {scratch.q_transposed, kTileQueries});
  transpose_rows(d_out, queries, dim, forward.scale, {scratch.d_out_transposed, kTileQueries});
  std::fill_n(scratch.lse, kTileQueries, 0.0f);
  std::fill_n(scratch.delta, kTileQueries, 0.0f);
  for (std::int64_t i = 0; i < queries; ++i) {
    // A query that sees no key: exp(score - infinity) is the 0 it needs.
    scratch.lse[i] = lse[i] == -kInfinity ? kInfinity : lse[i] * kLog2e;
    scratch.delta[i] = forward.scale * dot(d_out.row(i), forward.out.at(token + i, task.head), dim);
  }
  return {queries, whole_vectors(q, queries, dim, scratch.q),
          whole_vectors(d_out, queries, dim, scratch.d_out)};
}

// How a pair of tiles adds to gradients: the first overwrites.
struct AddTo {
  Into d_keys, d_q;
};

// Adds the share of a pair of tiles to d_q (in scratch), d_k and d_v.
void backward_tile(const AttentionBackward& args, const AttentionTask& task,
                   const QueryTile& queries, std::int64_t first_key, const AddTo& into,
                   BackwardScratch& scratch) {
  const AttentionForward& forward = args.forward;
  const TileMask& mask = scratch.mask;
  const std::int64_t token = forward.key_offsets[task.sequence] + first_key, keys = mask.keys;
  const std::int64_t dim = forward.head_dim, padded_dim = round_up_to_lanes(dim);
  const std::int64_t query_lanes = round_up_to_lanes(queries.count);
  const Tile<float> p{scratch.p, kTileQueries}, d_scores{scratch.d_scores, kTileQueries};
  const Tile<const float> k = rows_of(forward.k, token, task.head);
  const Tile<const float> v = rows_of(forward.v, token, task.head);
  const Tile<float> d_k = rows_of(args.d_k, token, task.head);
  const Tile<float> d_v = rows_of(args.d_v, token, task.head);
  const Tile<float> d_k_sum = whole_vectors(d_k, keys, dim, scratch.d_k);
  const Tile<float> d_v_sum = whole_vectors(d_v, keys, dim, scratch.d_v);

  multiply<Left::kAsIs>(keys, query_lanes, k, {scratch.q_transposed, kTileQueries}, p,
                        Into::kOverwrite, scores_extent(mask, dim));
  hide(mask, -kInfinity, p);
  probabilities(scratch);
  multiply<Left::kAsIs>(keys, padded_dim, p, queries.d_out, d_v_sum, into.d_keys,
                        queries_extent(mask));
  multiply<Left::kAsIs>(keys, query_lanes, v, {scratch.d_out_transposed, kTileQueries}, d_scores,
                        Into::kOverwrite, scores_extent(mask, dim));
  score_gradients(scratch);
  multiply<Left::kAsIs>(keys, padded_dim, d_scores, queries.q, d_k_sum, into.d_keys,
                        queries_extent(mask));
  multiply<Left::kTransposed>(queries.count, padded_dim, d_scores,
                              whole_vectors(k, keys, dim, scratch.k), {scratch.d_q, padded_dim},
                              into.d_q, keys_extent(mask));
  if (d_k_sum.data != d_k.data) {
    copy_rows(d_k_sum, keys, dim, d_k);
    copy_rows(d_v_sum, keys, dim, d_v);
  }
}

// d_k and d_v of keys that a sequence's first tile of queries does not see, so that the others can
// add to them.
void zero_keys(const AttentionBackward& args, const AttentionTask& task, std::int64_t begin,
               std::int64_t end) {
  for (const HeadsView<float>& gradient : {args.d_k, args.d_v}) {
    for (std::int64_t key = begin; key < end; ++key) {
      std::fill_n(gradient.at(args.forward.key_offsets[task.sequence] + key, task.head),
                  args.forward.head_dim, 0.0f);
    }
  }
}

void backward_task(const AttentionBackward& args, const AttentionTiles& tiles,
                   const AttentionTask& task, BackwardScratch& scratch) {
  const AttentionForward& forward = args.forward;
  const std::int64_t dim = forward.head_dim, padded_dim = round_up_to_lanes(dim);
  const std::int64_t first_query = forward.query_offsets[task.sequence];
  const std::int64_t num_keys =
      forward.key_offsets[task.sequence + 1] - forward.key_offsets[task.sequence];
  const std::int64_t tile = attention_tile(task.query_end);
  for (std::int64_t query = 0; query < task.query_end; query += tile) {
    const QueryTile queries =
        load_query_tile(args, task, query, std::min(tile, task.query_end - query), scratch);
    tiles.start(task.sequence, query, queries.count, scratch.query_mask);
    AddTo into{query == 0 ? Into::kOverwrite : Into::kAdd, Into::kOverwrite};
    std::int64_t end_of_last = 0;
    for (KeyTile keys; tiles.next(scratch.query_mask, keys, scratch.mask);) {
      if (query == 0) zero_keys(args, task, end_of_last, keys.begin);
      end_of_last = keys.begin + scratch.mask.keys;
      backward_tile(args, task, queries, keys.begin, into, scratch);
      into.d_q = Into::kAdd;
    }
    if (query == 0) zero_keys(args, task, end_of_last, num_keys);
    if (into.d_q == Into::kOverwrite) std::fill_n(scratch.d_q, queries.count * padded_dim, 0.0f);
    copy_rows({scratch.d_q, padded_dim}, queries.count, dim,
              rows_of(args.d_q, first_query + query, task.head));
  }
  if (task.query_end == 0) zero_keys(args, task, 0, num_keys);
}

}  // namespace serrate::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace serrate {

HWY_EXPORT(backward_task);

template <>
void jagged_attention_backward_on<DeviceType::kCpu>(const AttentionBackward& args,
                                                    const Stream& stream) {
  const AttentionSchedule schedule(args.forward, std::numeric_limits<std::int64_t>::max(),
                                   stream.num_threads());
  const AttentionTiles tiles(args.forward);
  check(!args.forward.lse.empty() || schedule.num_queries() == 0,
        "attention's backward needs the lse of its forward");
  Buffer<BackwardScratch> scratch(stream.num_threads(), stream);
#pragma omp parallel for schedule(dynamic) num_threads(stream.num_threads())
  for (std::int64_t t = 0; t < schedule.num_tasks(); ++t) {
    HWY_DYNAMIC_DISPATCH(backward_task)
    (args, tiles, schedule.task(t), scratch.span()[omp_get_thread_num()]);
  }
}

}  // namespace serrate
#endif  // HWY_ONCE
