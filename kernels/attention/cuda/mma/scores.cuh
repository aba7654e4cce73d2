#pragma once

#include <cstdint>

#include "kernels/attention/cuda/tile_list.cuh"
#include "kernels/cuda/exp2.cuh"
#include "kernels/cuda/fragments.cuh"
#include "kernels/cuda/sigmoid.cuh"

// From products of queries and keys to scores, as the fragments of tensor cores have them: what
// scores.cuh is for the plain kernels.
namespace serrate {

/// What a kernel is compiled for: nothing but masks that are ranges of keys, or biases, tables,
/// dropout and masks of pairs besides, for which it needs more registers.
enum class Extras { kNone, kAny };

constexpr bool is_mask_of_pairs(const AttentionMask& mask) {
  return std::holds_alternative<ColumnMask>(mask) || std::holds_alternative<BlockMask>(mask);
}
inline Extras extras_of(const AttentionView& args) {
  const bool any = args.bias.data || !args.position_table.values.empty() ||
                   !args.time_table.values.empty() || args.has_dropout ||
                   is_mask_of_pairs(args.mask);
  return any ? Extras::kAny : Extras::kNone;
}

/// What sums of weights are multiplied by once they are complete, in decoding those of each chunk.
/// SiLU's are divided by its divisor here: of long sequences, float16 has no numbers as small as
/// the quotients.
__device__ inline float scale_of_sums(const AttentionView& args) {
  return is_softmax(args) ? 1 : 1 / args.silu_divisor;
}

/// ExactActivation in few instructions, of scores over `scale`, without SiLU's divisor: as exact as
/// approximate_sigmoid() is, where weights are rounded to 2^-9 (bfloat16) or 2^-11 (float16, tf32).
/// Above 0, SiLU's derivative is off by 2^-20 (1 + x) at most; sums of bias gradients, which are
/// not rounded, take its error.
struct FastActivation {
  float scale = 1;

  __device__ float softmax(float score, float lse) const {
    return exp2_flushed(fmaf(scale, score, -lse));
  }
  __device__ Silu silu(float x) const {
    const float sigmoid = approximate_sigmoid(x);
    const float value = x * sigmoid;
    return {value, fmaf(value, 1 - sigmoid, sigmoid)};
  }
};

/// A warp's 16 queries and a tile of keys, as a lane sees them: the first of its two queries,
/// the keys of the warp's queries, in shared memory, and of the tile how many columns count.
struct LaneTile {
  int first_query;
  const KeyRanges* keys;
  int first_key, num_columns;
  bool is_full;

  __device__ int query(int r) const { return first_query + 8 * r; }
  /// The query of value i of block n of a fragment.
  __device__ int query(int, int i) const { return query(i / 2); }
  __device__ int key(int n, int i) const {
    return first_key + lane_index() % 4 * 2 + n * 8 + i % 2;
  }
};

/// Calls f(bit of a pair, row of the lane, key, the score).
template <int kBlocks, typename F>
__device__ void for_each_score(const LaneTile& tile, Fragment<kBlocks>& scores, F&& f) {
  const int first_key = tile.first_key + lane_index() % 4 * 2;
#pragma unroll
  for (int n = 0; n < kBlocks; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) f(n * 4 + i, i / 2, first_key + n * 8 + i % 2, scores[n][i]);
  }
}

/// What masks of pairs leave of pairs that are visible without them, a bit each, one after the
/// other: unrolled, this and add_biases() are most of a kernel, and of the time to compile it.
template <Extras kExtras, class Tile>
__device__ unsigned visible_by_pairs(const AttentionView& args, const TilePair& at,
                                     const Tile& tile, unsigned visible) {
  const bool by_pairs = kExtras == Extras::kAny && is_mask_of_pairs(args.mask);
#pragma unroll 1
  for (unsigned left = by_pairs ? visible : 0; left != 0; left &= left - 1) {
    const int bit = __ffs(static_cast<int>(left)) - 1, n = bit / 4, i = bit % 4;
    if (!lets_see(args, at, tile.query(n, i), tile.key(n, i))) visible &= ~(1u << bit);
  }
  return visible;
}

/// A bit for each pair that is visible. Of a query, a range of keys is a run of bits, those of its
/// row being next to each other; without a branch.
template <Extras kExtras, int kBlocks>
__device__ unsigned visible_pairs(const AttentionView& args, const TilePair& at,
                                  const LaneTile& tile) {
  if (tile.is_full) return ~0u;
  const int g = lane_index() / 4, before = lane_index() % 4 * 2;
  // The lane's keys are 0, 1, 8, 9, ... from its first one on; 8 kBlocks - 2 is behind them all.
  const int last = std::min(tile.num_columns - before, 8 * kBlocks - 2);
  const int first_key = tile.first_key + before;
  // A bit, and with it that of the first of the lane's keys from `key` on.
  const auto bit_of = [&](int key) {
    const int keys = std::max(std::min(key - first_key, last), 0);
    return 1u << (keys / 8 * 4 + std::min(keys % 8, 2));
  };
  unsigned visible = 0;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const KeyRanges keys = tile.keys[g + 8 * r];
    const unsigned runs = (bit_of(keys.end[0]) - bit_of(keys.begin[0])) |
                          (bit_of(keys.end[1]) - bit_of(keys.begin[1]));
    visible |= (runs & 0x33333333u) << 2 * r;
  }
  return visible_by_pairs<kExtras>(args, at, tile, visible);
}

template <Extras kExtras>
__device__ bool has_bias(const AttentionView& args) {
  return kExtras == Extras::kAny &&
         (args.bias.data || !args.position_table.values.empty() || !args.time_table.values.empty());
}

/// What products are multiplied by; in units of log 2 for softmax.
__device__ inline float scale_of_scores(const AttentionView& args) {
  return args.scale * (is_softmax(args) ? kLog2e : 1);
}

/// Scores of visible pairs += a factor times their biases. One block of 8 keys after the other
/// takes the place of the first, as registers have no index; kUnrolled of them have code of their
/// own.
template <int kBlocks, int kUnrolled = 1, class Tile>
__device__ void add_biases(const AttentionView& args, const TilePair& at, const Tile& tile,
                           unsigned visible, float factor, Fragment<kBlocks>& scores) {
#pragma unroll kUnrolled
  for (int n = 0; n < kBlocks; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float score = scores[0][i];
      const int query = tile.query(n, i);
      if ((visible >> (n * 4 + i) & 1) != 0 && query < at.queries.count) {
        score = fmaf(factor, bias_of(args, at, query, tile.key(n, i)), score);
      }
#pragma unroll
      for (int m = 1; m < kBlocks; ++m) scores[m - 1][i] = scores[m][i];
      scores[kBlocks - 1][i] = score;
    }
  }
}

/// Products become scores, in units of log 2 for softmax, over the result: without a bias, softmax
/// takes products as they are and scales them in the exponent. Else scores are rounded: nvcc must
/// not fuse the product into what follows with some extras and not with others.
template <Extras kExtras, int kBlocks, int kUnrolled = 1, class Tile>
__device__ float finish_scores(const AttentionView& args, const TilePair& at, const Tile& tile,
                               unsigned visible, Fragment<kBlocks>& scores) {
  const float scale = scale_of_scores(args);
  if (is_softmax(args) && !has_bias<kExtras>(args)) return scale;
#pragma unroll
  for (auto& block : scores) {
#pragma unroll
    for (float& x : block) x = __fmul_rn(x, scale);
  }
  if (has_bias<kExtras>(args)) {
    add_biases<kBlocks, kUnrolled>(args, at, tile, visible, is_softmax(args) ? kLog2e : 1, scores);
  }
  return 1;
}

/// A bit for each pair that dropout keeps. Four keys share a draw, and two lanes have them: each
/// lane draws for one of its queries and hands the other lane its half.
template <int kBlocks>
__device__ unsigned kept_pairs(const AttentionView& args, const TilePair& at,
                               const LaneTile& tile) {
  const int q = lane_index() % 4, odd = q % 2;
  const std::int64_t query = tile.query(odd);
  std::uint64_t id = 0;
  if (query < at.queries.count) {
    id = static_cast<std::uint64_t>(args.token_ids[at.queries.in_out + query]);
  }
  unsigned kept = 0;
#pragma unroll 2
  for (int n = 0; n < kBlocks; ++n) {
    const int group = (tile.first_key + n * 8) / 4 + q / 2;
    const auto words =
        philox4x32({static_cast<std::uint32_t>(id), static_cast<std::uint32_t>(id >> 32),
                    static_cast<std::uint32_t>(group),
                    args.draw.site + (static_cast<std::uint32_t>(at.head) << 16)},
                   args.draw.key);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const std::uint32_t own = odd ? words[2 + i] : words[i];
      const std::uint32_t other = __shfl_xor_sync(~0u, odd ? words[i] : words[2 + i], 1);
      const std::uint32_t drawn[2] = {odd ? other : own, odd ? own : other};
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        kept |= static_cast<unsigned>(drawn[r] >= args.draw.threshold) << (n * 4 + r * 2 + i);
      }
    }
  }
  return kept;
}

}  // namespace serrate
