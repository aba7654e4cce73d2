// Additive bias of tiles of scores, and its gradient. Include in a file that foreach_target.h
// compiles once per target.
#if defined(SERRATE_KERNELS_ATTENTION_BIAS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SERRATE_KERNELS_ATTENTION_BIAS_INL_H_
#undef SERRATE_KERNELS_ATTENTION_BIAS_INL_H_
#else
#define SERRATE_KERNELS_ATTENTION_BIAS_INL_H_
#endif

#include <algorithm>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/attention/cpu/tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace serrate::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// Where a tile is: which of its sequence's queries and keys come first.
struct TilePlace {
  std::int64_t sequence, head, query, key;
};

// The first `count` lanes, 0 in the others; memory beyond is not touched.
HWY_INLINE auto load_first(hn::ScalableTag<float> d, const float* from, std::int64_t count) {
  return hn::MaskedLoad(hn::FirstN(d, static_cast<std::size_t>(count)), d, from);
}

template <typename T>
T* bias_at(const BiasView& bias, T* data, const TilePlace& place) {
  return data + place.sequence * bias.sequence_stride + place.head * bias.head_stride +
         place.query * bias.query_stride + place.key * bias.key_stride;
}

/// scores += factor * bias. `transposed` is space for a tile.
inline void add_bias(const BiasView& bias, const TilePlace& place, const TileMask& mask,
                     float factor, Tile<float> transposed, Tile<float> scores) {
  const hn::ScalableTag<float> d;
  const float* data = bias_at(bias, bias.data, place);
  if (bias.key_stride == 1) {
    transpose_rows({data, bias.query_stride}, mask.queries, mask.keys, factor, transposed);
  }
  for (std::int64_t q = 0; q < mask.queries; q += kLanes) {
    const TileRange read = mask.read[q / kMaskBlock];
    const std::int64_t lanes = std::min(kLanes, mask.queries - q);
    for (std::int64_t r = read.begin; r < read.end; ++r) {
      float* row = scores.row(r) + q;
      const auto value =
          bias.key_stride == 1
              ? hn::Load(d, transposed.row(r) + q)
              : hn::Mul(hn::Set(d, factor), load_first(d, data + r * bias.key_stride + q, lanes));
      hn::Store(hn::Add(hn::Load(d, row), value), d, row);
    }
  }
}

// 0 where no product reads.
inline void zero_unread(const TileMask& mask, Tile<float> tile) {
  const hn::ScalableTag<float> d;
  for (std::int64_t q = 0; q < mask.queries; q += kLanes) {
    const TileRange read = mask.read[q / kMaskBlock];
    for (std::int64_t r = 0; r < read.begin; ++r) hn::Store(hn::Zero(d), d, tile.row(r) + q);
    for (std::int64_t r = read.end; r < mask.keys; ++r) hn::Store(hn::Zero(d), d, tile.row(r) + q);
  }
}

// to += factor * from
inline void add_row(const float* from, float factor, std::int64_t count, float* to) {
  const hn::ScalableTag<float> d;
  for (std::int64_t i = 0; i < count; i += kLanes) {
    const std::int64_t lanes = std::min(kLanes, count - i);
    const auto sum = hn::MulAdd(hn::Set(d, factor), load_first(d, from + i, lanes),
                                load_first(d, to + i, lanes));
    hn::BlendedStore(sum, hn::FirstN(d, static_cast<std::size_t>(lanes)), d, to + i);
  }
}

/// d_bias += factor * d_scores.
inline void add_bias_gradient(const BiasView& bias, float* d_bias, const TilePlace& place,
                              const TileMask& mask, float factor, Tile<float> transposed,
                              Tile<float> d_scores) {
  float* data = bias_at(bias, d_bias, place);
  zero_unread(mask, d_scores);
  if (bias.key_stride == 1) {
    transpose_rows(d_scores, mask.keys, mask.queries, 1.0f, transposed);
    for (std::int64_t q = 0; q < mask.queries; ++q) {
      add_row(transposed.row(q), factor, mask.keys, data + q * bias.query_stride);
    }
  } else {
    for (std::int64_t r = 0; r < mask.keys; ++r) {
      add_row(d_scores.row(r), factor, mask.queries, data + r * bias.key_stride);
    }
  }
}

}  // namespace serrate::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // SERRATE_KERNELS_ATTENTION_BIAS_INL_H_
