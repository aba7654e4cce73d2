// From products of queries and keys to weights, as the forward and the backward have them. Include
// in a file that foreach_target.h compiles once per target.
#if defined(SERRATE_KERNELS_ATTENTION_SCORES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SERRATE_KERNELS_ATTENTION_SCORES_INL_H_
#undef SERRATE_KERNELS_ATTENTION_SCORES_INL_H_
#else
#define SERRATE_KERNELS_ATTENTION_SCORES_INL_H_
#endif

#include <cstdint>

#include "hwy/highway.h"
#include "kernels/attention/cpu/bias-inl.h"
#include "kernels/attention/cpu/dropout-inl.h"
#include "kernels/attention/cpu/tables-inl.h"
#include "kernels/attention/cpu/tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace serrate::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// Products k q^T, with the scale and score_factor() in them, become scores: biases are added, and
/// what a query does not see is -infinity before softmax. `transposed` is space for a tile.
inline void finish_scores(const AttentionView& args, const TilePlace& place, const TileMask& mask,
                          Tile<float> transposed, Diagonals& diagonals, Tile<float> scores) {
  const float factor = score_factor(args.activation);
  if (args.bias.data) add_bias(args.bias, place, mask, factor, transposed, scores);
  add_tables(args, place, mask, factor, diagonals, scores);
  if (args.activation == AttentionActivation::kSoftmax) hide(mask, -kInfinity, scores);
}

enum class SiluDerivatives { kNo, kYes };

/// Scores become weights and, if asked for, their derivatives in place of the scores.
template <SiluDerivatives kDerivatives>
void pointwise_silu(float divisor, const TileMask& mask, Tile<float> scores, Tile<float> weights) {
  const hn::ScalableTag<float> d;
  const auto factor = hn::Set(d, 1 / divisor);
  for (std::int64_t q = 0; q < mask.queries; q += kLanes) {
    const TileRange read = mask.read[q / kMaskBlock];
    for (std::int64_t r = read.begin; r < read.end; ++r) {
      float* score = scores.row(r) + q;
      const SiluValues values = silu(d, hn::Load(d, score));
      hn::Store(hn::Mul(factor, values.value), d, weights.row(r) + q);
      if constexpr (kDerivatives == SiluDerivatives::kYes) {
        hn::Store(hn::Mul(factor, values.derivative), d, score);
      }
    }
  }
  if constexpr (kDerivatives == SiluDerivatives::kYes) hide(mask, 0, scores);
  hide(mask, 0, weights);
}

/// Draws which weights of a tile are kept; false if all are.
inline bool draw_dropout(const AttentionView& args, const TilePlace& place, const TileMask& mask,
                         KeptBits* kept) {
  if (!args.has_dropout) return false;
  const std::int64_t row = queries_of(args, place.sequence).in_out + place.query;
  draw_kept(args.draw, &args.token_ids[row], place.head, place.key, mask, kept);
  return true;
}

}  // namespace serrate::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // SERRATE_KERNELS_ATTENTION_SCORES_INL_H_
