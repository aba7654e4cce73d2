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
                          std::int64_t query, BackwardScratch& scratch) {
  const AttentionForward& forward = args.forward;
  const std::int64_t token = forward.query_offsets[task.sequence] + query;
  const std::int64_t queries = std::min(kTileQueries, task.query_end - query);
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

// Adds a tile's share to d_q (in scratch), d_k and d_v.
void backward_tile(const AttentionBackward& args, const AttentionTask& task, const QueryTile& tile,
                   std::int64_t key, std::int64_t keys, BackwardScratch& scratch) {
  const AttentionForward& forward = args.forward;
  const std::int64_t token = forward.key_offsets[task.sequence] + key;
  const std::int64_t dim = forward.head_dim, padded_dim = round_up_to_lanes(dim);
  const std::int64_t query_lanes = round_up_to_lanes(tile.count);
  const Band band = band_of(forward.mask, tile.first, tile.count, key, keys);
  const Tile<float> p{scratch.p, kTileQueries}, d_scores{scratch.d_scores, kTileQueries};
  const Tile<float> d_q{scratch.d_q, padded_dim};
  const Tile<const float> k = rows_of(forward.k, token, task.head);
  const Tile<const float> v = rows_of(forward.v, token, task.head);
  const Tile<float> d_k = rows_of(args.d_k, token, task.head);
  const Tile<float> d_v = rows_of(args.d_v, token, task.head);
  const Tile<float> d_k_sum = whole_vectors(d_k, keys, dim, scratch.d_k);
  const Tile<float> d_v_sum = whole_vectors(d_v, keys, dim, scratch.d_v);

  multiply<Left::kAsIs>(keys, query_lanes, k, {scratch.q_transposed, kTileQueries}, p,
                        Into::kOverwrite, band.scores_extent(dim));
  mask_scores(band, p);
  probabilities(band, scratch);
  multiply<Left::kAsIs>(keys, padded_dim, p, tile.d_out, d_v_sum, Into::kAdd,
                        band.queries_extent());
  multiply<Left::kAsIs>(keys, query_lanes, v, {scratch.d_out_transposed, kTileQueries}, d_scores,
                        Into::kOverwrite, band.scores_extent(dim));
  score_gradients(band, scratch);
  multiply<Left::kAsIs>(keys, padded_dim, d_scores, tile.q, d_k_sum, Into::kAdd,
                        band.queries_extent());
  multiply<Left::kTransposed>(tile.count, padded_dim, d_scores,
                              whole_vectors(k, keys, dim, scratch.k), d_q, Into::kAdd,
                              band.keys_extent());
  if (d_k_sum.data != d_k.data) {
    copy_rows(d_k_sum, keys, dim, d_k);
    copy_rows(d_v_sum, keys, dim, d_v);
  }
}

void zero_rows(const HeadsView<float>& rows, std::int64_t begin, std::int64_t end,
               std::int64_t head, std::int64_t dim) {
  for (std::int64_t token = begin; token < end; ++token) {
    std::fill_n(rows.at(token, head), dim, 0.0f);
  }
}

void backward_task(const AttentionBackward& args, const AttentionTask& task,
                   BackwardScratch& scratch) {
  const AttentionForward& forward = args.forward;
  const std::int64_t dim = forward.head_dim, padded_dim = round_up_to_lanes(dim);
  const std::int64_t first_query = forward.query_offsets[task.sequence];
  const std::int64_t first_key = forward.key_offsets[task.sequence];
  const std::int64_t num_keys = forward.key_offsets[task.sequence + 1] - first_key;
  zero_rows(args.d_k, first_key, first_key + num_keys, task.head, dim);
  zero_rows(args.d_v, first_key, first_key + num_keys, task.head, dim);
  for (std::int64_t query = 0; query < task.query_end; query += kTileQueries) {
    const QueryTile tile = load_query_tile(args, task, query, scratch);
    const std::int64_t visible_keys = num_visible_keys(forward.mask, query + tile.count, num_keys);
    std::fill_n(scratch.d_q, tile.count * padded_dim, 0.0f);
    for (std::int64_t key = 0; key < visible_keys; key += kTileKeys) {
      backward_tile(args, task, tile, key, std::min(kTileKeys, visible_keys - key), scratch);
    }
    for (std::int64_t q = 0; q < tile.count; ++q) {
      std::copy_n(scratch.d_q + q * padded_dim, dim,
                  args.d_q.at(first_query + query + q, task.head));
    }
  }
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
  Buffer<BackwardScratch> scratch(stream.num_threads(), stream);
#pragma omp parallel for schedule(dynamic) num_threads(stream.num_threads())
  for (std::int64_t t = 0; t < schedule.num_tasks(); ++t) {
    HWY_DYNAMIC_DISPATCH(backward_task)
    (args, schedule.task(t), scratch.span()[omp_get_thread_num()]);
  }
}

}  // namespace serrate
#endif  // HWY_ONCE
