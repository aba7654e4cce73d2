// The backward of FlashAttention: probabilities come back from scores and log-sum-exp, tile by
// tile. One task owns a sequence in a head of keys and adds to its d_k and d_v in place, so every
// sum has one order. Five products a tile: scores = k q^T, d_v += p d_out, d_p = v d_out^T,
// d_k += d_scores q, d_q += d_scores^T k, with d_scores = p (d_p - sum of d_out * out).
#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <limits>

#include "kernels/attention_batch.h"
#include "kernels/attention_mask.h"
#include "kernels/attention_schedule.h"
#include "kernels/attention_scratch.h"
#include "kernels/simd_targets.h"
#include "serrate/buffer.h"
#include "serrate/kernels/attention.h"

#ifndef SERRATE_KERNELS_ATTENTION_KEY_HEAD
#define SERRATE_KERNELS_ATTENTION_KEY_HEAD
namespace serrate {

/// A sequence in one head of keys: what a task owns.
struct KeyHead {
  std::int64_t sequence, key_head;
};

}  // namespace serrate
#endif

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/attention_backward_cpu.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/attention_bias-inl.h"
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

// p becomes the derivative of the activation, and d_scores its value: the weights.
void pointwise_silu(float divisor, BackwardScratch& scratch) {
  const hn::ScalableTag<float> d;
  const auto factor = hn::Set(d, 1 / divisor);
  for (std::int64_t q = 0; q < scratch.mask.queries; q += kLanes) {
    const TileRange read = scratch.mask.read[q / kMaskBlock];
    for (std::int64_t r = read.begin; r < read.end; ++r) {
      float* p = scratch.p + r * kTileQueries + q;
      const SiluValues values = silu(d, hn::Load(d, p));
      hn::Store(hn::Mul(factor, values.value), d, scratch.d_scores + r * kTileQueries + q);
      hn::Store(hn::Mul(factor, values.derivative), d, p);
    }
  }
  hide(scratch.mask, 0, {scratch.p, kTileQueries});
  hide(scratch.mask, 0, {scratch.d_scores, kTileQueries});
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

// One sequence in one head.
struct HeadTask {
  const AttentionBackward& args;
  std::int64_t sequence, head;
  std::int64_t key_head() const { return head / heads_per_key_head(args.forward); }
};

// What a tile of queries needs of every tile of keys.
struct QueryTile {
  std::int64_t first, count;
  Tile<const float> q, d_out;
};

QueryTile load_query_tile(const HeadTask& task, std::int64_t query, std::int64_t queries,
                          BackwardScratch& scratch) {
  const AttentionForward& forward = task.args.forward;
  const SequenceQueries all = queries_of(forward, task.sequence);
  const std::int64_t token = all.in_out + query, dim = forward.head_dim;
  const Tile<const float> q = rows_of(forward.q, all.in_q + query, task.head);
  const Tile<const float> d_out = rows_of(task.args.d_out, token, task.head);

  transpose_rows(q, queries, dim, forward.scale * score_factor(forward.activation),
                 {scratch.q_transposed, kTileQueries});
  transpose_rows(d_out, queries, dim, forward.scale, {scratch.d_out_transposed, kTileQueries});
  std::fill_n(scratch.lse, kTileQueries, 0.0f);
  std::fill_n(scratch.delta, kTileQueries, 0.0f);
  if (forward.activation == AttentionActivation::kSoftmax) {
    const float* lse =
        &forward.lse[task.head * (std::ssize(forward.lse) / forward.num_heads) + token];
    for (std::int64_t i = 0; i < queries; ++i) {
      // A query that sees no key: exp(score - infinity) is the 0 it needs.
      scratch.lse[i] = lse[i] == -kInfinity ? kInfinity : lse[i] * kLog2e;
      scratch.delta[i] =
          forward.scale * dot(d_out.row(i), forward.out.at(token + i, task.head), dim);
    }
  }
  return {query, queries, whole_vectors(q, queries, dim, scratch.q),
          whole_vectors(d_out, queries, dim, scratch.d_out)};
}

// How a pair of tiles adds to gradients: the first overwrites.
struct AddTo {
  Into d_keys, d_q;
};

// Adds the share of a pair of tiles to d_q (in scratch), d_k, d_v and d_bias.
void backward_tile(const HeadTask& task, const QueryTile& queries, std::int64_t first_key,
                   const AddTo& into, BackwardScratch& scratch) {
  const AttentionForward& forward = task.args.forward;
  const TileMask& mask = scratch.mask;
  const std::int64_t token = forward.key_offsets[task.sequence] + first_key, keys = mask.keys;
  const std::int64_t dim = forward.head_dim, padded_dim = round_up_to_lanes(dim);
  const std::int64_t query_lanes = round_up_to_lanes(queries.count);
  const Tile<float> p{scratch.p, kTileQueries}, d_scores{scratch.d_scores, kTileQueries};
  const Tile<float> transposed{scratch.bias, kTileQueries};
  const Tile<const float> k = rows_of(forward.k, token, task.key_head());
  const Tile<const float> v = rows_of(forward.v, token, task.key_head());
  const Tile<float> d_k = rows_of(task.args.d_k, token, task.key_head());
  const Tile<float> d_v = rows_of(task.args.d_v, token, task.key_head());
  const Tile<float> d_k_sum = whole_vectors(d_k, keys, dim, scratch.d_k);
  const Tile<float> d_v_sum = whole_vectors(d_v, keys, dim, scratch.d_v);
  const TilePlace place{task.sequence, task.head, queries.first, first_key};
  const bool is_softmax = forward.activation == AttentionActivation::kSoftmax;

  multiply<Left::kAsIs>(keys, query_lanes, k, {scratch.q_transposed, kTileQueries}, p,
                        Into::kOverwrite, scores_extent(mask, dim));
  if (forward.bias.data) {
    add_bias(forward.bias, place, mask, score_factor(forward.activation), transposed, p);
  }
  if (is_softmax) {
    hide(mask, -kInfinity, p);
    probabilities(scratch);
  } else {
    pointwise_silu(forward.silu_divisor, scratch);
  }
  multiply<Left::kAsIs>(keys, padded_dim, is_softmax ? p : d_scores, queries.d_out, d_v_sum,
                        into.d_keys, queries_extent(mask));
  multiply<Left::kAsIs>(keys, query_lanes, v, {scratch.d_out_transposed, kTileQueries}, d_scores,
                        Into::kOverwrite, scores_extent(mask, dim));
  score_gradients(scratch);
  if (task.args.d_bias) {
    add_bias_gradient(forward.bias, task.args.d_bias, place, mask, 1 / forward.scale, transposed,
                      d_scores);
  }
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

// d_k and d_v of keys that the first tile of queries does not see, so that the others can add.
void zero_keys(const HeadTask& task, std::int64_t begin, std::int64_t end) {
  const AttentionForward& forward = task.args.forward;
  for (const HeadsView<float>& gradient : {task.args.d_k, task.args.d_v}) {
    for (std::int64_t key = begin; key < end; ++key) {
      std::fill_n(gradient.at(forward.key_offsets[task.sequence] + key, task.key_head()),
                  forward.head_dim, 0.0f);
    }
  }
}

// d_q of queries [query, query + count), in scratch, and their share of d_k and d_v.
void backward_queries(const HeadTask& task, const AttentionTiles& tiles, std::int64_t query,
                      std::int64_t count, Into d_keys, BackwardScratch& scratch) {
  const QueryTile queries = load_query_tile(task, query, count, scratch);
  tiles.start(task.sequence, query, count, scratch.query_mask);
  AddTo into{d_keys, Into::kOverwrite};
  std::int64_t end_of_last = 0;
  for (KeyTile keys; tiles.next(scratch.query_mask, keys, scratch.mask); into.d_q = Into::kAdd) {
    if (d_keys == Into::kOverwrite) zero_keys(task, end_of_last, keys.begin);
    end_of_last = keys.begin + scratch.mask.keys;
    backward_tile(task, queries, keys.begin, into, scratch);
  }
  if (d_keys == Into::kOverwrite) {
    zero_keys(task, end_of_last, num_keys_of(task.args.forward, task.sequence));
  }
  if (into.d_q == Into::kOverwrite) {
    std::fill_n(scratch.d_q, count * round_up_to_lanes(task.args.forward.head_dim), 0.0f);
  }
}

// `d_q` has a row per query of the batch.
void backward_task(const AttentionBackward& args, const HeadsView<float>& d_q,
                   const AttentionTiles& tiles, const KeyHead& task, BackwardScratch& scratch) {
  const AttentionForward& forward = args.forward;
  const SequenceQueries queries = queries_of(forward, task.sequence);
  const std::int64_t tile = attention_tile(queries.count), group = heads_per_key_head(forward);
  Into d_keys = Into::kOverwrite;
  for (std::int64_t head = task.key_head * group; head < (task.key_head + 1) * group; ++head) {
    const HeadTask head_task{args, task.sequence, head};
    if (queries.count == 0) zero_keys(head_task, 0, num_keys_of(forward, task.sequence));
    for (std::int64_t query = 0; query < queries.count; query += tile, d_keys = Into::kAdd) {
      const std::int64_t count = std::min(tile, queries.count - query);
      backward_queries(head_task, tiles, query, count, d_keys, scratch);
      copy_rows({scratch.d_q, round_up_to_lanes(forward.head_dim)}, count, forward.head_dim,
                rows_of(d_q, queries.in_out + query, head));
    }
  }
}

}  // namespace serrate::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace serrate {

HWY_EXPORT(backward_task);

namespace {

// d_q of shared queries: [batch_size, num_shared_queries, num_heads, head_dim].
std::int64_t num_separate_d_q(const AttentionForward& args) {
  return args.num_shared_queries == 0
             ? 0
             : batch_size_of(args) * args.num_shared_queries * args.num_heads * args.head_dim;
}

void sum_over_batch(const AttentionForward& args, const HeadsView<float>& separate,
                    const HeadsView<float>& d_q, const Stream& stream) {
#pragma omp parallel for collapse(2) num_threads(stream.num_threads())
  for (std::int64_t i = 0; i < args.num_shared_queries; ++i) {
    for (std::int64_t head = 0; head < args.num_heads; ++head) {
      float* sum = d_q.at(i, head);
      std::fill_n(sum, args.head_dim, 0.0f);
      for (std::int64_t s = 0; s < batch_size_of(args); ++s) {
        const float* one = separate.at(s * args.num_shared_queries + i, head);
        for (std::int64_t c = 0; c < args.head_dim; ++c) sum[c] += one[c];
      }
    }
  }
}

// Calls f(sequence and head of keys, thread). Those that add to the same bias keep to one thread
// and to their order.
template <typename F>
void for_each_key_head(const AttentionBackward& args, const Stream& stream, F&& f) {
  const AttentionForward& forward = args.forward;
  const std::int64_t batch_size = batch_size_of(forward), heads = num_key_heads_of(forward);
  const AttentionSchedule schedule(forward, heads, std::numeric_limits<std::int64_t>::max(),
                                   stream.num_threads());
  const bool share_over_sequences = args.d_bias && forward.bias.sequence_stride == 0;
  const bool share_over_heads = args.d_bias && forward.bias.head_stride == 0;
  if (!share_over_sequences && !share_over_heads) {
#pragma omp parallel for schedule(dynamic) num_threads(stream.num_threads())
    for (std::int64_t t = 0; t < schedule.num_tasks(); ++t) {
      const AttentionTask task = schedule.task(t);
      f(KeyHead{task.sequence, task.head}, omp_get_thread_num());
    }
    return;
  }
  const std::int64_t sequences = share_over_sequences ? batch_size : 1;
  const std::int64_t heads_together = share_over_heads ? heads : 1;
  const std::int64_t groups_of_heads = heads / heads_together;
  const std::int64_t groups = (share_over_sequences ? 1 : batch_size) * groups_of_heads;
#pragma omp parallel for schedule(dynamic) num_threads(stream.num_threads())
  for (std::int64_t g = 0; g < groups; ++g) {
    const std::int64_t sequence = g / groups_of_heads, head = g % groups_of_heads;
    for (std::int64_t s = sequence; s < sequence + sequences; ++s) {
      for (std::int64_t h = head; h < head + heads_together; ++h) {
        f(KeyHead{s, h}, omp_get_thread_num());
      }
    }
  }
}

}  // namespace

template <>
void jagged_attention_backward_on<DeviceType::kCpu>(const AttentionBackward& args,
                                                    const Stream& stream) {
  const AttentionForward& forward = args.forward;
  const AttentionTiles tiles(forward);
  Buffer<BackwardScratch> scratch(stream.num_threads(), stream);
  Buffer<float> separate(num_separate_d_q(forward), stream);
  const HeadsView<float> d_q =
      forward.num_shared_queries == 0
          ? args.d_q
          : HeadsView<float>{separate.data(), forward.num_heads * forward.head_dim,
                             forward.head_dim};
  for_each_key_head(args, stream, [&](const KeyHead& task, int thread) {
    HWY_DYNAMIC_DISPATCH(backward_task)(args, d_q, tiles, task, scratch.span()[thread]);
  });
  if (forward.num_shared_queries > 0) sum_over_batch(forward, d_q, args.d_q, stream);
}

template <>
std::int64_t jagged_attention_backward_workspace_on<DeviceType::kCpu>(const AttentionBackward& args,
                                                                      const Stream& stream) {
  return static_cast<std::int64_t>(sizeof(BackwardScratch)) * stream.num_threads() +
         static_cast<std::int64_t>(sizeof(float)) * num_separate_d_q(args.forward);
}

}  // namespace serrate
#endif  // HWY_ONCE
