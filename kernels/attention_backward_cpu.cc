// The backward of FlashAttention: probabilities come back from scores and log-sum-exp, tile by
// tile. One task owns a sequence in a head and adds to its d_k and d_v in place, so every sum has
// one order. Five products a tile: scores = k q^T, d_v += p d_out, d_p = v d_out^T,
// d_k += d_scores q, d_q += d_scores^T k, with d_scores = p (d_p - sum of d_out * out).
#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <limits>

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
void probabilities(const Band& band, BackwardScratch& scratch) {
  const hn::ScalableTag<float> d;
  for (std::int64_t q = 0; q < band.queries; q += kLanes) {
    const auto lse = hn::Load(d, scratch.lse + q);
    float* p = scratch.p + q;
    for (std::int64_t r = 0; r < band.rows_read(q); ++r, p += kTileQueries) {
      hn::Store(Exp2(d, hn::Sub(hn::Load(d, p), lse)), d, p);
    }
  }
}

// d_scores = p (d_p - delta) in place of d_p, 0 where invisible.
void score_gradients(const Band& band, BackwardScratch& scratch) {
  const hn::ScalableTag<float> d;
  for (std::int64_t q = 0; q < band.queries; q += kLanes) {
    const auto delta = hn::Load(d, scratch.delta + q);
    const float* p = scratch.p + q;
    float* ds = scratch.d_scores + q;
    std::int64_t r = 0;
    for (; r < band.keys_of(q + kLanes - 1); ++r, p += kTileQueries, ds += kTileQueries) {
      hn::Store(hn::Mul(hn::Load(d, p), hn::Sub(hn::Load(d, ds), delta)), d, ds);
    }
    for (; r < band.rows_read(q); ++r, ds += kTileQueries) hn::Store(hn::Zero(d), d, ds);
  }
}

// What a tile of queries needs of every tile of keys.
struct QueryTile {
  std::int64_t first, count;  // in the sequence
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
  return {query, queries, whole_vectors(q, queries, dim, scratch.q),
          whole_vectors(d_out, queries, dim, scratch.d_out)};
}

// Keys of the sequence, and whether their gradients have a value yet.
struct KeyTile {
  std::int64_t first, count;
  Into into;
};

// Adds the share of a pair of tiles to d_q (in scratch), d_k and d_v.
void backward_tile(const AttentionBackward& args, const AttentionTask& task,
                   const QueryTile& queries, const KeyTile& keys, BackwardScratch& scratch) {
  const AttentionForward& forward = args.forward;
  const std::int64_t token = forward.key_offsets[task.sequence] + keys.first;
  const std::int64_t dim = forward.head_dim, padded_dim = round_up_to_lanes(dim);
  const std::int64_t query_lanes = round_up_to_lanes(queries.count);
  const Band band = band_of(forward.mask, queries.first, queries.count, keys.first, keys.count);
  const Tile<float> p{scratch.p, kTileQueries}, d_scores{scratch.d_scores, kTileQueries};
  const Tile<const float> k = rows_of(forward.k, token, task.head);
  const Tile<const float> v = rows_of(forward.v, token, task.head);
  const Tile<float> d_k = rows_of(args.d_k, token, task.head);
  const Tile<float> d_v = rows_of(args.d_v, token, task.head);
  const Tile<float> d_k_sum = whole_vectors(d_k, keys.count, dim, scratch.d_k);
  const Tile<float> d_v_sum = whole_vectors(d_v, keys.count, dim, scratch.d_v);

  multiply<Left::kAsIs>(keys.count, query_lanes, k, {scratch.q_transposed, kTileQueries}, p,
                        Into::kOverwrite, band.scores_extent(dim));
  mask_scores(band, p);
  probabilities(band, scratch);
  multiply<Left::kAsIs>(keys.count, padded_dim, p, queries.d_out, d_v_sum, keys.into,
                        band.queries_extent());
  multiply<Left::kAsIs>(keys.count, query_lanes, v, {scratch.d_out_transposed, kTileQueries},
                        d_scores, Into::kOverwrite, band.scores_extent(dim));
  score_gradients(band, scratch);
  multiply<Left::kAsIs>(keys.count, padded_dim, d_scores, queries.q, d_k_sum, keys.into,
                        band.queries_extent());
  multiply<Left::kTransposed>(queries.count, padded_dim, d_scores,
                              whole_vectors(k, keys.count, dim, scratch.k),
                              {scratch.d_q, padded_dim},
                              keys.first == 0 ? Into::kOverwrite : Into::kAdd, band.keys_extent());
  if (d_k_sum.data != d_k.data) {
    copy_rows(d_k_sum, keys.count, dim, d_k);
    copy_rows(d_v_sum, keys.count, dim, d_v);
  }
}

void zero_rows(Tile<float> tile, std::int64_t begin, std::int64_t end, std::int64_t dim) {
  for (std::int64_t r = begin; r < end; ++r) std::fill_n(tile.row(r), dim, 0.0f);
}

void backward_task(const AttentionBackward& args, const AttentionTask& task,
                   BackwardScratch& scratch) {
  const AttentionForward& forward = args.forward;
  const std::int64_t dim = forward.head_dim, padded_dim = round_up_to_lanes(dim);
  const std::int64_t first_query = forward.query_offsets[task.sequence];
  const std::int64_t first_key = forward.key_offsets[task.sequence];
  const std::int64_t num_keys = forward.key_offsets[task.sequence + 1] - first_key;
  const std::int64_t tile_queries = even_tile(task.query_end, kTileQueries, kLanes);
  std::int64_t seen_keys = 0;
  for (std::int64_t query = 0; query < task.query_end; query += tile_queries) {
    const QueryTile queries =
        load_query_tile(args, task, query, std::min(tile_queries, task.query_end - query), scratch);
    const std::int64_t visible_keys =
        num_visible_keys(forward.mask, query + queries.count, num_keys);
    const auto over_keys = [&](std::int64_t begin, std::int64_t end, Into into) {
      const std::int64_t tile_keys = even_tile(end - begin, kTileKeys, kBlockRows);
      for (std::int64_t key = begin; key < end; key += tile_keys) {
        backward_tile(args, task, queries, {key, std::min(tile_keys, end - key), into}, scratch);
      }
    };
    if (visible_keys == 0) zero_rows({scratch.d_q, padded_dim}, 0, queries.count, dim);
    over_keys(0, seen_keys, Into::kAdd);
    over_keys(seen_keys, visible_keys, Into::kOverwrite);
    seen_keys = visible_keys;
    copy_rows({scratch.d_q, padded_dim}, queries.count, dim,
              rows_of(args.d_q, first_query + query, task.head));
  }
  zero_rows(rows_of(args.d_k, first_key, task.head), seen_keys, num_keys, dim);
  zero_rows(rows_of(args.d_v, first_key, task.head), seen_keys, num_keys, dim);
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
  check(!args.forward.lse.empty() || schedule.num_queries() == 0,
        "attention's backward needs the lse of its forward");
  Buffer<BackwardScratch> scratch(stream.num_threads(), stream);
#pragma omp parallel for schedule(dynamic) num_threads(stream.num_threads())
  for (std::int64_t t = 0; t < schedule.num_tasks(); ++t) {
    HWY_DYNAMIC_DISPATCH(backward_task)
    (args, schedule.task(t), scratch.span()[omp_get_thread_num()]);
  }
}

}  // namespace serrate
#endif  // HWY_ONCE
