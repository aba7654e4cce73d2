#pragma once

#include <cstdint>

#include "kernels/attention/cuda/mma/scores.cuh"
#include "kernels/cuda/exp2.cuh"

// Weights and gradients of scores as the backward by wgmma has them: in few instructions, and where
// a warp owns keys with these as the rows of a fragment and queries as its columns.
namespace serrate {

/// 16 queries of a warp, of which a lane has two, and keys.
struct QueryLaneTile : LaneTile {
  QuerySums sums[2];

  __device__ QuerySums sums_of(int, int i) const { return sums[i / 2]; }
};

/// 16 keys of a warp, of which a lane has first_key and the one 8 further on, and queries of a tile
/// from first_query on.
struct KeyLaneTile {
  int first_key, first_query;
  const KeyRanges* ranges;  // of the queries, in shared memory; not of a full tile
  const QuerySums* sums;    // likewise
  bool is_full;

  __device__ int place(int n, int i) const { return lane_index() % 4 * 2 + n * 8 + i % 2; }
  __device__ int query(int n, int i) const { return first_query + place(n, i); }
  __device__ int key(int, int i) const { return first_key + i / 2 * 8; }
  __device__ QuerySums sums_of(int n, int i) const { return sums[place(n, i)]; }
};

/// A bit for each pair that is visible.
template <Extras kExtras, int kBlocks>
__device__ unsigned visible_pairs(const AttentionView& args, const TilePair& at,
                                  const KeyLaneTile& tile) {
  if (tile.is_full) return ~0u;
  const int column = lane_index() % 4 * 2;
  unsigned visible = 0;
#pragma unroll
  for (int n = 0; n < kBlocks; ++n) {
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      const int query = column + n * 8 + c;
      const KeyRanges keys = tile.ranges[query];
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int key = tile.first_key + 8 * r;
        visible |= static_cast<unsigned>(keys.contains(key)) << (n * 4 + r * 2 + c);
      }
    }
  }
  return visible_by_pairs<kExtras>(args, at, tile, visible);
}

/// A bit for each pair that dropout keeps. Four keys share a draw, and four lanes have them: each
/// draws for a quarter of the queries and hands the others their words.
template <int kBlocks>
__device__ unsigned kept_pairs(const AttentionView& args, const TilePair& at,
                               const KeyLaneTile& tile) {
  const int lane = lane_index(), own = lane / 4 % 4, column = lane % 4 * 2;
  unsigned kept = 0;
#pragma unroll 1
  // Four blocks of queries at a time, for key r and query c of two.
  for (int j = 0; j < (kBlocks < 4 ? 4 : kBlocks); ++j) {
    const int first = j / 4 * 4, r = j / 2 % 2, c = j % 2;
    const std::int64_t query = tile.first_query + (first + own) * 8 + column + c;
    std::uint64_t id = 0;
    if (query < at.queries.count) {
      id = static_cast<std::uint64_t>(args.token_ids[at.queries.in_out + query]);
    }
    const auto words =
        philox4x32({static_cast<std::uint32_t>(id), static_cast<std::uint32_t>(id >> 32),
                    static_cast<std::uint32_t>((tile.first_key + 8 * r) / 4),
                    args.draw.site + (static_cast<std::uint32_t>(at.head) << 16)},
                   args.draw.key);
#pragma unroll
    for (int x = 0; x < 4; ++x) {
      const int other = own ^ x;  // whose key the word is, and whose queries come in return
      const std::uint32_t word = other == 0   ? words[0]
                                 : other == 1 ? words[1]
                                 : other == 2 ? words[2]
                                              : words[3];
      const std::uint32_t drawn = __shfl_xor_sync(~0u, word, 4 * x);
      kept |= static_cast<unsigned>(drawn >= args.draw.threshold)
              << ((first + other) * 4 + r * 2 + c);
    }
  }
  return kept;
}

/// Products become weights as dropout leaves them, gradients of weights those of scores: what
/// finish_scores() and weight_and_gradient() make of them, but what is hidden is apart and softmax
/// is known before, so that nothing branches in between.
template <Extras kExtras, int kBlocks, class Tile>
__device__ void weigh_pairs(const AttentionView& args, const TilePair& at, const Tile& tile,
                            Fragment<kBlocks>& weights, Fragment<kBlocks>& gradients) {
  const bool has_softmax = is_softmax(args);
  const bool has_dropout = kExtras == Extras::kAny && args.has_dropout;
  const unsigned visible = visible_pairs<kExtras, kBlocks>(args, at, tile);
  const unsigned kept = has_dropout ? kept_pairs<kBlocks>(args, at, tile) : ~0u;
  const auto for_each = [&](auto&& f) {
#pragma unroll
    for (int n = 0; n < kBlocks; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) f(n, i, weights[n][i], gradients[n][i]);
    }
  };
  const auto is_set = [](unsigned bits, int n, int i) { return (bits >> (n * 4 + i) & 1) != 0; };
  const auto factor_of = [&](int n, int i) -> float {
    return !has_dropout ? 1 : is_set(kept, n, i) ? args.draw.scale : 0;
  };
  // Where few rows are taken at once, there is no register for a loop.
  constexpr int kUnrolled = kBlocks <= 4 ? kBlocks : 1;
  const FastActivation activation{
      finish_scores<kExtras, kBlocks, kUnrolled>(args, at, tile, visible, weights)};
  if (has_softmax) {
    for_each([&](int n, int i, float& score, float& gradient) {
      const QuerySums sums = tile.sums_of(n, i);
      const float weight = activation.softmax(score, sums.lse), factor = factor_of(n, i);
      const float kept_gradient = factor == 0 ? 0 : __fmul_rn(factor, gradient);
      score = factor * weight;
      // Where the weight, or SiLU's derivative, is 0, its gradient need not have a value.
      gradient = weight == 0 ? 0 : weight * (kept_gradient - sums.delta);
    });
  } else {
    for_each([&](int n, int i, float& score, float& gradient) {
      const Silu values = activation.silu(score);
      const float factor = factor_of(n, i);
      const float kept_gradient = factor == 0 ? 0 : __fmul_rn(factor, gradient);
      score = factor == 0 ? 0 : factor * values.value;
      gradient = values.derivative == 0 ? 0 : values.derivative * kept_gradient;
    });
  }
  if (tile.is_full) return;
  for_each([&](int n, int i, float& weight, float& gradient) {
    weight = is_set(visible, n, i) ? weight : 0;
    gradient = is_set(visible, n, i) ? gradient : 0;
  });
}

}  // namespace serrate
