// FlashAttention on vectors: for a tile of queries, the keys go by in tiles, and a running maximum
// and sum for every query keep softmax exact. Two products a tile: scores = k q^T, out += p^T v.
// Where a long history is cut into chunks (Flash-Decoding: Dao et al. 2023), each leaves its
// maximum, sum and unnormalised out, which are combined in the order of the chunks.
#include <omp.h>

#include <algorithm>
#include <cstdint>

#include "kernels/attention/batch.h"
#include "kernels/attention/cpu/scratch.h"
#include "kernels/attention/mask.h"
#include "kernels/attention/schedule.h"
#include "kernels/dense/dropout_draw.h"
#include "kernels/simd/targets.h"
#include "serrate/buffer.h"
#include "serrate/kernels/attention.h"

#ifndef SERRATE_KERNELS_ATTENTION_FORWARD_CALL
#define SERRATE_KERNELS_ATTENTION_FORWARD_CALL
namespace serrate {

/// What the tasks of one call share.
struct ForwardCall {
  const AttentionForward& args;
  const AttentionTiles& tiles;
  DropoutDraw draw;
  float* partials;
};

}  // namespace serrate
#endif

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/attention/cpu/forward.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "hwy/contrib/math/math-inl.h"
#include "kernels/attention/cpu/bias-inl.h"
#include "kernels/attention/cpu/dropout-inl.h"
#include "kernels/attention/cpu/few_rows-inl.h"
#include "kernels/attention/cpu/rows-inl.h"
#include "kernels/attention/cpu/tables-inl.h"
#include "kernels/attention/cpu/tile-inl.h"
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

// A tile of a sequence's queries, in one head or several: their rows follow one another.
struct ForwardTile {
  const ForwardCall& call;
  const AttentionTask& task;
  std::int64_t first, count;

  const AttentionForward& args() const { return call.args; }
  bool is_softmax() const { return args().activation == AttentionActivation::kSoftmax; }
  std::int64_t rows() const { return task.num_heads * count; }
  std::int64_t key_head() const { return task.head / heads_per_key_head(args()); }
  std::int64_t num_key_heads() const {
    return ceil_div(task.num_heads, heads_per_key_head(args()));
  }
  std::int64_t rows_per_key_head() const { return rows() / num_key_heads(); }
  std::int64_t padded_dim() const { return round_up_to_lanes(args().head_dim); }
  // The first query in what has a row per query of the batch.
  std::int64_t token() const { return queries_of(args(), task.sequence).in_out + first; }
  // Keys or values of the sequence from one on.
  HeadsBlock heads_of_keys(const InputHeads& from, std::int64_t key, std::int64_t keys) const {
    return {
        from,           args().key_offsets[task.sequence] + key, key_head(), keys, num_key_heads(),
        args().head_dim};
  }
};

// The rows of several heads become one tile.
Tile<const float> load_queries(const ForwardTile& tile, ForwardScratch& scratch) {
  const AttentionForward& args = tile.args();
  const std::int64_t token = queries_of(args, tile.task.sequence).in_q + tile.first;
  const auto load = [&](std::int64_t head, float* copy) {
    return load_rows(args.q, token, head, tile.count, args.head_dim, RowEnds::kAsTheyAre, copy);
  };
  if (tile.task.num_heads == 1) return load(tile.task.head, scratch.v);
  const Tile<float> rows{scratch.v, tile.padded_dim()};
  for (std::int64_t h = 0; h < tile.task.num_heads; ++h) {
    copy_rows(load(tile.task.head + h, scratch.k), tile.count, args.head_dim,
              {rows.row(h * tile.count), rows.stride});
  }
  return rows;
}

// Scaled, as the products want them.
void prepare_queries(const ForwardTile& tile, ForwardScratch& scratch) {
  const AttentionForward& args = tile.args();
  const float scale = args.scale * score_factor(args.activation);
  const Tile<const float> rows = load_queries(tile, scratch);
  if (!tile.task.few_rows) {
    transpose_rows(rows, tile.rows(), args.head_dim, scale, {scratch.q, kTileQueries});
    return;
  }
  const Tile<float> q{scratch.q, tile.padded_dim()};
  std::fill_n(scratch.factor, tile.rows(), scale);
  scale_rows(rows, tile.rows(), args.head_dim, scratch.factor, q);
  for (std::int64_t r = 0; r < tile.rows(); ++r) {
    std::fill(q.row(r) + args.head_dim, q.row(r + 1), 0.0f);
  }
}

// out = sum of p v / sum of p; lse back in units of e.
void normalise(const ForwardTile& tile, ForwardScratch& scratch) {
  const hn::ScalableTag<float> d;
  for (std::int64_t q = 0; q < tile.rows(); q += kLanes) {
    const auto sum = hn::Load(d, scratch.sum + q);
    const auto saw_none = hn::Eq(sum, hn::Zero(d));
    const auto of_sum = hn::IfThenElse(hn::Eq(sum, sum), hn::Log2(d, sum), sum);  // keeps NaN
    const auto lse = hn::Add(hn::Load(d, scratch.max + q), of_sum);
    hn::Store(hn::IfThenZeroElse(saw_none, hn::Div(hn::Set(d, 1), sum)), d, scratch.factor + q);
    hn::Store(
        hn::IfThenElse(saw_none, hn::Set(d, -kInfinity), hn::Mul(lse, hn::Set(d, 1 / kLog2e))), d,
        scratch.max + q);
  }
}

// What a tile has gathered in its scratch goes to out and lse.
void write_tile(const ForwardTile& tile, ForwardScratch& scratch) {
  const AttentionForward& args = tile.args();
  const bool in_place = args.out.type == HeadsType::kFloat32;
  const std::int64_t token = tile.token();
  if (tile.is_softmax()) normalise(tile, scratch);
  for (std::int64_t h = 0; h < tile.task.num_heads; ++h) {
    const std::int64_t row = h * tile.count, head = tile.task.head + h;
    const Tile<float> out{scratch.out + row * tile.padded_dim(), tile.padded_dim()};
    if (tile.is_softmax()) {
      scale_rows(out, tile.count, args.head_dim, scratch.factor + row,
                 in_place ? rows_of(args.out.as<float>(), token, head) : out);
      if (!args.lse.empty()) {
        std::copy_n(scratch.max + row, tile.count,
                    &args.lse[head * (std::ssize(args.lse) / args.num_heads) + token]);
      }
    }
    if (!tile.is_softmax() || !in_place) {
      store_rows(out, tile.count, args.head_dim, args.out, token, head);
    }
  }
}

// What a chunk of keys leaves of the rows of a tile: out [rows, head_dim], max and sum [rows].
struct Partials {
  Tile<float> out;
  float *max, *sum;
};

Partials partials_at(const ForwardTile& tile, std::int64_t chunk) {
  const AttentionForward& args = tile.args();
  const std::int64_t rows_before = (chunk * args.num_heads + tile.task.head) * tile.count;
  float* out = tile.call.partials + tile.task.partials + rows_before * (args.head_dim + 2);
  float* max = out + tile.rows() * args.head_dim;
  return {{out, args.head_dim}, max, max + tile.rows()};
}

void write_partials(const ForwardTile& tile, const ForwardScratch& scratch) {
  const Partials to = partials_at(tile, tile.task.chunk);
  copy_rows({scratch.out, tile.padded_dim()}, tile.rows(), tile.args().head_dim, to.out);
  std::copy_n(scratch.max, tile.rows(), to.max);
  std::copy_n(scratch.sum, tile.rows(), to.sum);
}

void clear_sums(ForwardScratch& scratch) {
  std::fill_n(scratch.max, kTileQueries, -kInfinity);
  std::fill_n(scratch.sum, kTileQueries, 0.0f);
}

void clear_out(const ForwardTile& tile, ForwardScratch& scratch) {
  std::fill_n(scratch.out, tile.rows() * tile.padded_dim(), 0.0f);
}

// The chunks of a tile become as if there had been one.
void combine_chunks(const ForwardTile& tile, ForwardScratch& scratch) {
  const hn::ScalableTag<float> d;
  const std::int64_t rows = tile.rows();
  clear_sums(scratch);
  clear_out(tile, scratch);
  for (std::int64_t chunk = 0; chunk < tile.task.num_chunks; ++chunk) {
    const Partials partials = partials_at(tile, chunk);
    for (std::int64_t r = 0; r < rows; ++r) {
      scratch.max[r] = std::max(scratch.max[r], partials.max[r]);
    }
  }
  for (std::int64_t chunk = 0; chunk < tile.task.num_chunks; ++chunk) {
    const Partials partials = partials_at(tile, chunk);
    for (std::int64_t r = 0; r < rows; r += kLanes) {
      const std::int64_t lanes = std::min(kLanes, rows - r);
      const auto max = hn::Load(d, scratch.max + r);
      const auto shift = hn::IfThenZeroElse(hn::Eq(max, hn::Set(d, -kInfinity)), max);
      const auto factor = Exp2(d, hn::Sub(load_first(d, partials.max + r, lanes), shift));
      hn::Store(tile.is_softmax() ? factor : hn::Set(d, 1), d, scratch.factor + r);
      hn::Store(
          hn::MulAdd(factor, load_first(d, partials.sum + r, lanes), hn::Load(d, scratch.sum + r)),
          d, scratch.sum + r);
    }
    for (std::int64_t r = 0; r < rows; ++r) {
      add_row(partials.out.row(r), scratch.factor[r], tile.args().head_dim,
              scratch.out + r * tile.padded_dim());
    }
  }
}

// scores = k q^T
void score_keys(const ForwardTile& tile, std::int64_t first_key, ForwardScratch& scratch) {
  const AttentionForward& args = tile.args();
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
  const AttentionForward& args = tile.args();
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
  const AttentionForward& args = tile.args();
  const AttentionTask& task = tile.task;
  const TileMask& mask = scratch.mask;
  const Tile<float> scores{scratch.scores, kTileQueries}, out{scratch.out, tile.padded_dim()};
  const TilePlace place{task.sequence, task.head, tile.first, first_key};
  const float factor = score_factor(args.activation);
  score_keys(tile, first_key, scratch);
  if (args.bias.data) {
    add_bias(args.bias, place, mask, factor, {scratch.bias, kTileQueries}, scores);
  }
  add_tables(args, place, mask, factor, scratch.diagonals, scores);
  if (tile.is_softmax()) {
    hide(mask, -kInfinity, scores);
    online_softmax(scratch);
    if (into == Into::kAdd) scale_rows(out, tile.rows(), out.stride, scratch.factor, out);
  } else {
    pointwise_silu(args.silu_divisor, scratch);
  }
  if (args.dropout.rate > 0) {
    draw_kept(tile.call.draw, &args.dropout.token_ids[tile.token()], task.head, first_key, mask,
              scratch.kept);
    drop(mask, scratch.kept, tile.call.draw.scale, scores, scores);
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
void look_ahead_to(const AttentionForward& args, const AttentionTask& task, RowsAhead& ahead) {
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
void jagged_attention_forward_on<DeviceType::kCpu>(const AttentionForward& args,
                                                   const Stream& stream) {
  const AttentionSchedule schedule(args, args.num_heads, forward_split, stream.num_threads());
  const AttentionTiles tiles(args);
  Buffer<float> own_partials(args.partials.empty() ? schedule.num_partials() : 0, stream);
  const ForwardCall call{args, tiles, dropout_draw(args.dropout),
                         args.partials.empty() ? own_partials.data() : args.partials.data()};
  Buffer<ForwardScratch> scratch(stream.num_threads(), stream);
  const bool looks_ahead = outgrows_cache(args);
#pragma omp parallel for schedule(dynamic) num_threads(stream.num_threads())
  for (std::int64_t t = 0; t < schedule.num_tasks(); ++t) {
    ForwardScratch& of_thread = scratch.span()[omp_get_thread_num()];
    of_thread.ahead.clear();
    const std::int64_t soon = t + stream.num_threads();
    if (looks_ahead && soon < schedule.num_tasks()) {
      look_ahead_to(args, schedule.task(soon), of_thread.ahead);
    }
    HWY_DYNAMIC_DISPATCH(forward_task)(call, schedule.task(t), of_thread);
  }
  if (schedule.num_partials() == 0) return;
#pragma omp parallel for schedule(dynamic) num_threads(stream.num_threads())
  for (std::int64_t t = 0; t < schedule.num_tasks(); ++t) {
    const AttentionTask task = schedule.task(t);
    if (task.num_chunks == 1 || task.chunk > 0) continue;
    HWY_DYNAMIC_DISPATCH(combine_task)(call, task, scratch.span()[omp_get_thread_num()]);
  }
}

template <>
std::int64_t jagged_attention_partials_on<DeviceType::kCpu>(const AttentionForward& args,
                                                            const Stream&) {
  return AttentionSchedule(args, args.num_heads, forward_split, 1).num_partials();
}

template <>
std::int64_t jagged_attention_forward_workspace_on<DeviceType::kCpu>(const AttentionForward& args,
                                                                     const Stream& stream) {
  const auto partials = args.partials.empty() ? jagged_attention_partials(args, stream) : 0;
  return static_cast<std::int64_t>(sizeof(ForwardScratch)) * stream.num_threads() +
         static_cast<std::int64_t>(sizeof(float)) * partials;
}

}  // namespace serrate
#endif  // HWY_ONCE
