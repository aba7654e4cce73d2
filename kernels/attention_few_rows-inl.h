// Products of a few query rows with many keys. They are bound by reading keys and values, so all
// heads go by together, in the order of memory, and what comes next is fetched ahead. Include in a
// file that foreach_target.h compiles once per target.
#if defined(SERRATE_KERNELS_ATTENTION_FEW_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SERRATE_KERNELS_ATTENTION_FEW_ROWS_INL_H_
#undef SERRATE_KERNELS_ATTENTION_FEW_ROWS_INL_H_
#else
#define SERRATE_KERNELS_ATTENTION_FEW_ROWS_INL_H_
#endif

#include <algorithm>
#include <cstdint>

#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "kernels/attention_rows-inl.h"
#include "kernels/attention_split.h"
#include "kernels/attention_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace serrate::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// Tokens [token, token + count) in consecutive heads.
struct HeadsBlock {
  const InputHeads& from;
  std::int64_t token, head, count, num_heads, head_dim;
};

// Scores of this many rows are summed over the lanes at a time, and of this many keys at once.
inline constexpr std::int64_t kDotRows = 4;
inline constexpr std::int64_t kDotKeys = kBlockVectors;
// Copies of so many tokens have room in a scratch.
inline constexpr std::int64_t kMaxPart = kTileKeys * kMaxHeadDim / kMaxFewRowsColumns;

#if HWY_TARGET != HWY_SCALAR
// Stores the first four lanes of what vectors of four lanes each add up to.
template <class D>
HWY_INLINE void store_sum_of_quads(D d, hn::Vec<D> v, float* to) {
  if constexpr (hn::MaxLanes(D()) == 4) {
    hn::StoreU(v, d, to);
  } else {
    const hn::Half<D> half;
    store_sum_of_quads(half, hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)), to);
  }
}
#endif

/// to[i] = the sum of the lanes of v[i].
template <class V>
HWY_INLINE void store_sums(const V (&v)[kDotRows], float* to) {
  const hn::ScalableTag<float> d;
#if HWY_TARGET == HWY_SCALAR
  for (std::int64_t i = 0; i < kDotRows; ++i) hn::StoreU(v[i], d, to + i);
#else
  const hn::Repartition<double, decltype(d)> pairs;
  const auto v01 = hn::Add(hn::InterleaveLower(d, v[0], v[1]), hn::InterleaveUpper(d, v[0], v[1]));
  const auto v23 = hn::Add(hn::InterleaveLower(d, v[2], v[3]), hn::InterleaveUpper(d, v[2], v[3]));
  const auto even = hn::BitCast(pairs, v01), odd = hn::BitCast(pairs, v23);
  store_sum_of_quads(d,
                     hn::Add(hn::BitCast(d, hn::InterleaveLower(pairs, even, odd)),
                             hn::BitCast(d, hn::InterleaveUpper(pairs, even, odd))),
                     to);
#endif
}

enum class KeysOfRows { kOwn, kShared };

// scores[r][i] = q[i] . k[i] of key r, for kKeys keys and kDotRows rows; k[i] is all the same if
// they are shared.
template <KeysOfRows kKeysOfRows, std::int64_t kKeys>
HWY_INLINE void dot_block(const float* const (&q)[kDotRows], const float* const (&k)[kDotRows],
                          std::int64_t token_stride, std::int64_t columns, Tile<float> scores) {
  const hn::ScalableTag<float> d;
  hn::Vec<decltype(d)> sum[kKeys][kDotRows];
#pragma GCC unroll 4
  for (std::int64_t r = 0; r < kKeys; ++r) {
#pragma GCC unroll 4
    for (std::int64_t i = 0; i < kDotRows; ++i) sum[r][i] = hn::Zero(d);
  }
  for (std::int64_t c = 0; c < columns; c += kLanes) {
#pragma GCC unroll 4
    for (std::int64_t r = 0; r < kKeys; ++r) {
      const auto shared = hn::LoadU(d, k[0] + r * token_stride + c);
#pragma GCC unroll 4
      for (std::int64_t i = 0; i < kDotRows; ++i) {
        const auto key =
            kKeysOfRows == KeysOfRows::kShared ? shared : hn::LoadU(d, k[i] + r * token_stride + c);
        sum[r][i] = hn::MulAdd(hn::Load(d, q[i] + c), key, sum[r][i]);
      }
    }
  }
#pragma GCC unroll 4
  for (std::int64_t r = 0; r < kKeys; ++r) store_sums(sum[r], scores.row(r));
}

template <KeysOfRows kKeysOfRows>
HWY_NOINLINE void dot_keys(const float* const (&q)[kDotRows], const float* const (&k)[kDotRows],
                           std::int64_t token_stride, std::int64_t columns, std::int64_t keys,
                           Tile<float> scores) {
  const float* key[kDotRows] = {k[0], k[1], k[2], k[3]};
  for (std::int64_t r = 0; r < keys;) {
    const bool is_whole = r + kDotKeys <= keys;
    const Tile<float> to{scores.row(r), scores.stride};
    if (is_whole) {
      dot_block<kKeysOfRows, kDotKeys>(q, key, token_stride, columns, to);
    } else {
      dot_block<kKeysOfRows, 1>(q, key, token_stride, columns, to);
    }
    const std::int64_t step = is_whole ? kDotKeys : 1;
    for (const float*& p : key) p += step * token_stride;
    r += step;
  }
}

/// scores[r][i] = q's row i . key r in that row's head, of which there is one for every
/// `rows_per_head` rows.
inline void dot_rows(Tile<const float> q, std::int64_t rows, std::int64_t rows_per_head,
                     const HeadsView<const float>& k, std::int64_t keys, Tile<float> scores) {
  for (std::int64_t row = 0; row < rows; row += kDotRows) {
    const float *q_rows[kDotRows], *k_rows[kDotRows];
    for (std::int64_t i = 0; i < kDotRows; ++i) {
      const std::int64_t r = std::min(row + i, rows - 1);
      q_rows[i] = q.row(r), k_rows[i] = k.at(0, r / rows_per_head);
    }
    const Tile<float> to{scores.data + row, scores.stride};
    if (k_rows[0] == k_rows[kDotRows - 1]) {
      dot_keys<KeysOfRows::kShared>(q_rows, k_rows, k.token_stride, q.stride, keys, to);
    } else {
      dot_keys<KeysOfRows::kOwn>(q_rows, k_rows, k.token_stride, q.stride, keys, to);
    }
  }
}

/// out's row i (+)= sum over keys of p[r][i] * value r in that row's head.
inline void add_weighted(Tile<const float> p, std::int64_t rows, std::int64_t rows_per_head,
                         const HeadsView<const float>& v, std::int64_t keys, Tile<float> out,
                         Into into) {
  for (std::int64_t row = 0; row < rows; row += rows_per_head) {
    multiply<Left::kTransposed>(rows_per_head, out.stride, {p.data + row, p.stride},
                                {v.at(0, row / rows_per_head), v.token_stride},
                                {out.row(row), out.stride}, into,
                                [&](std::int64_t, std::int64_t) { return Extent{0, 0, keys}; });
  }
}

/// As floats that end with 0s up to whole vectors: where they are if they can be, else a copy.
inline HeadsView<const float> load_heads(const HeadsBlock& block, float* copy) {
  if (block.from.type == HeadsType::kFloat32 && block.head_dim % kLanes == 0) {
    const HeadsView<const float> view = block.from.as<float>();
    return {view.at(block.token, block.head), view.token_stride, view.head_stride};
  }
  const std::int64_t columns = round_up_to_lanes(block.head_dim);
  for (std::int64_t h = 0; h < block.num_heads; ++h) {
    load_rows(block.from, block.token, block.head + h, block.count, block.head_dim,
              RowEnds::kWholeVectors, copy + h * block.count * columns);
  }
  return {copy, columns, block.count * columns};
}

inline std::int64_t bytes_of_head(const HeadsBlock& block) {
  return block.head_dim * (block.from.type == HeadsType::kFloat32 ? 4 : 2);
}

/// Asks memory for the heads of a token.
inline void fetch(const HeadsBlock& block, std::int64_t token) {
  constexpr std::int64_t kLine = 64;
  const std::int64_t bytes = bytes_of_head(block), size = bytes / block.head_dim;
  for (std::int64_t h = 0; h < block.num_heads; ++h) {
    const char* head =
        static_cast<const char*>(block.from.data) +
        (token * block.from.token_stride + (block.head + h) * block.from.head_stride) * size;
    for (std::int64_t i = 0; i < bytes; i += kLine) hwy::Prefetch(head + i);
  }
}

/// Calls f(first, part) for parts of a block of at most kMaxPart tokens. While one is at work,
/// memory is asked for what is some way ahead: after the block's last tokens, the first of `next`.
template <typename F>
void for_each_part(const HeadsBlock& all, const HeadsBlock& next, F&& f) {
  constexpr std::int64_t kBytesAtOnce = 4096, kBytesAhead = 16384;
  const std::int64_t row = bytes_of_head(all) * all.num_heads;
  const std::int64_t at_once =
      std::clamp(kBytesAtOnce / row / kDotKeys * kDotKeys, kDotKeys, kMaxPart);
  const std::int64_t ahead = std::max(kBytesAhead / row, at_once);
  for (std::int64_t first = 0; first < all.count; first += at_once) {
    const std::int64_t count = std::min(at_once, all.count - first);
    for (std::int64_t t = first + ahead; t < first + ahead + count; ++t) {
      if (t < all.count) {
        fetch(all, all.token + t);
      } else if (t < all.count + next.count) {
        fetch(next, next.token + t - all.count);
      }
    }
    f(first, HeadsBlock{all.from, all.token + first, all.head, count, all.num_heads, all.head_dim});
  }
}

}  // namespace serrate::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // SERRATE_KERNELS_ATTENTION_FEW_ROWS_INL_H_
