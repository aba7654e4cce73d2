// Tiles of queries of the forward, from memory and back to it. Include in a file that
// foreach_target.h compiles once per target.
#if defined(SERRATE_KERNELS_ATTENTION_FORWARD_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SERRATE_KERNELS_ATTENTION_FORWARD_TILE_INL_H_
#undef SERRATE_KERNELS_ATTENTION_FORWARD_TILE_INL_H_
#else
#define SERRATE_KERNELS_ATTENTION_FORWARD_TILE_INL_H_
#endif

#include <algorithm>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/attention/cpu/few_rows-inl.h"
#include "kernels/attention/cpu/forward_call.h"
#include "kernels/attention/cpu/rows-inl.h"
#include "kernels/attention/cpu/scratch.h"
#include "kernels/attention/cpu/tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace serrate::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// A tile of a sequence's queries, in one head or several: their rows follow one another.
struct ForwardTile {
  const ForwardCall& call;
  const AttentionTask& task;
  std::int64_t first, count;

  const AttentionView& args() const { return call.args; }
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
inline Tile<const float> load_queries(const ForwardTile& tile, ForwardScratch& scratch) {
  const AttentionView& args = tile.args();
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
inline void prepare_queries(const ForwardTile& tile, ForwardScratch& scratch) {
  const AttentionView& args = tile.args();
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

inline void clear_sums(ForwardScratch& scratch) {
  std::fill_n(scratch.max, kTileQueries, -kInfinity);
  std::fill_n(scratch.sum, kTileQueries, 0.0f);
}

inline void clear_out(const ForwardTile& tile, ForwardScratch& scratch) {
  std::fill_n(scratch.out, tile.rows() * tile.padded_dim(), 0.0f);
}

// out = sum of p v / sum of p; lse back in units of e.
inline void normalise(const ForwardTile& tile, ForwardScratch& scratch) {
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
inline void write_tile(const ForwardTile& tile, ForwardScratch& scratch) {
  const AttentionView& args = tile.args();
  const bool in_place = args.out.type == DataType::kFloat32;
  const std::int64_t token = tile.token();
  if (tile.is_softmax()) normalise(tile, scratch);
  for (std::int64_t h = 0; h < tile.task.num_heads; ++h) {
    const std::int64_t row = h * tile.count, head = tile.task.head + h;
    const Tile<float> out{scratch.out + row * tile.padded_dim(), tile.padded_dim()};
    if (tile.is_softmax()) {
      scale_rows(out, tile.count, args.head_dim, scratch.factor + row,
                 in_place ? rows_of(view_as<float>(args.out), token, head) : out);
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

}  // namespace serrate::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // SERRATE_KERNELS_ATTENTION_FORWARD_TILE_INL_H_
