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
#include <type_traits>

#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "kernels/attention/cpu/rows-inl.h"
#include "kernels/attention/cpu/split.h"
#include "kernels/attention/cpu/tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace serrate::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// Tokens [token, token + count) in consecutive heads.
struct HeadsBlock {
  const InputHeads& from;
  std::int64_t token, head, count, num_heads, head_dim;
  HeadsBlock part(std::int64_t first, std::int64_t tokens) const {
    return {from, token + first, head, tokens, num_heads, head_dim};
  }
};

// Products are made of blocks of so many rows and keys.
inline constexpr std::int64_t kFewRowsBlock = 4;
inline constexpr std::int64_t kFewKeysBlock = 4;

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
HWY_INLINE void store_sums(const V (&v)[kFewRowsBlock], float* to) {
  const hn::ScalableTag<float> d;
#if HWY_TARGET == HWY_SCALAR
  for (std::int64_t i = 0; i < kFewRowsBlock; ++i) hn::StoreU(v[i], d, to + i);
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

// scores[r][i] = q[i] . k[i] of key r, for kKeys keys and a block of rows; k[i] is all the same if
// they are shared.
template <KeysOfRows kKeysOfRows, std::int64_t kKeys>
HWY_INLINE void dot_block(const float* const* q, const float* const* k, std::int64_t token_stride,
                          std::int64_t columns, Tile<float> scores) {
  const hn::ScalableTag<float> d;
  hn::Vec<decltype(d)> sum[kKeys][kFewRowsBlock];
#pragma GCC unroll 4
  for (std::int64_t r = 0; r < kKeys; ++r) {
#pragma GCC unroll 4
    for (std::int64_t i = 0; i < kFewRowsBlock; ++i) sum[r][i] = hn::Zero(d);
  }
  for (std::int64_t c = 0; c < columns; c += kLanes) {
#pragma GCC unroll 4
    for (std::int64_t r = 0; r < kKeys; ++r) {
      const auto shared = hn::LoadU(d, k[0] + r * token_stride + c);
#pragma GCC unroll 4
      for (std::int64_t i = 0; i < kFewRowsBlock; ++i) {
        const auto key =
            kKeysOfRows == KeysOfRows::kShared ? shared : hn::LoadU(d, k[i] + r * token_stride + c);
        sum[r][i] = hn::MulAdd(hn::Load(d, q[i] + c), key, sum[r][i]);
      }
    }
  }
#pragma GCC unroll 4
  for (std::int64_t r = 0; r < kKeys; ++r) store_sums(sum[r], scores.row(r));
}

// out[i] += sum of p[r][i] * value r, for kKeys keys and kRows rows.
template <std::int64_t kRows, std::int64_t kKeys>
HWY_INLINE void add_block(Tile<const float> p, const float* v, std::int64_t token_stride,
                          std::int64_t columns, Tile<float> out) {
  const hn::ScalableTag<float> d;
  using V = hn::Vec<decltype(d)>;
  V weights[kKeys][kRows];
#pragma GCC unroll 4
  for (std::int64_t r = 0; r < kKeys; ++r) {
#pragma GCC unroll 4
    for (std::int64_t i = 0; i < kRows; ++i) weights[r][i] = hn::Set(d, p.row(r)[i]);
  }
  for (std::int64_t c = 0; c < columns; c += kLanes) {
    V value[kKeys];
#pragma GCC unroll 4
    for (std::int64_t r = 0; r < kKeys; ++r) value[r] = hn::LoadU(d, v + r * token_stride + c);
#pragma GCC unroll 4
    for (std::int64_t i = 0; i < kRows; ++i) {
      auto sum = hn::Load(d, out.row(i) + c);
#pragma GCC unroll 4
      for (std::int64_t r = 0; r < kKeys; ++r) sum = hn::MulAdd(weights[r][i], value[r], sum);
      hn::Store(sum, d, out.row(i) + c);
    }
  }
}

/// As floats that end with 0s up to whole vectors: where they are if they can be, else a copy.
inline HeadsView<const float> load_heads(const HeadsBlock& block, float* copy) {
  if (block.from.type == DataType::kFloat32 && block.head_dim % kLanes == 0) {
    const HeadsView<const float> view = view_as<float>(block.from);
    return {view.at(block.token, block.head), view.token_stride, view.head_stride};
  }
  const std::int64_t columns = round_up_to_lanes(block.head_dim);
  for (std::int64_t h = 0; h < block.num_heads; ++h) {
    load_rows(block.from, block.token, block.head + h, block.count, block.head_dim,
              RowEnds::kWholeVectors, copy + h * block.count * columns);
  }
  return {copy, columns, block.count * columns};
}

/// Where the tokens of a block are in memory: runs of bytes, one if its heads follow one another.
struct Footprint {
  const char* first;
  std::int64_t token_stride, run_stride, num_runs, run;

  explicit Footprint(const HeadsBlock& block) {
    const std::int64_t size = block.from.type == DataType::kFloat32 ? 4 : 2;
    token_stride = block.from.token_stride * size, run_stride = block.from.head_stride * size;
    first = static_cast<const char*>(block.from.device_data) + block.token * token_stride +
            block.head * run_stride;
    const bool in_one_run = block.from.head_stride == block.head_dim;
    num_runs = in_one_run ? 1 : block.num_heads;
    run = block.head_dim * size * (in_one_run ? block.num_heads : 1);
  }
  std::int64_t token_bytes() const { return num_runs * run; }
  // Asks memory for some tokens. Inlined, or the compiler would take it to do nothing.
  HWY_INLINE void fetch(std::int64_t begin, std::int64_t end) const {
    constexpr std::int64_t kLine = 64;
    for (std::int64_t t = begin; t < end; ++t) {
      for (std::int64_t r = 0; r < num_runs; ++r) {
        const char* data = first + t * token_stride + r * run_stride;
        for (std::int64_t i = 0; i < run; i += kLine) hwy::Prefetch(data + i);
      }
    }
  }
};

/// Calls f(first key, how many as a constant) for blocks of keys of `all`. Before each, memory is
/// asked for as many some way ahead: after the last ones, for the first of `next`.
template <typename F>
HWY_INLINE void for_each_keys_block(const HeadsBlock& all, const HeadsBlock& next, const F& f) {
  constexpr std::int64_t kBytesAhead = 8192;
  const Footprint here(all), there(next);
  const std::int64_t ahead = kBytesAhead / here.token_bytes() + kFewKeysBlock;
  for (std::int64_t r = 0; r < all.count;) {
    const bool is_whole = r + kFewKeysBlock <= all.count;
    const std::int64_t begin = r + ahead, end = begin + kFewKeysBlock;
    here.fetch(begin, std::min(end, all.count));
    there.fetch(std::max<std::int64_t>(begin - all.count, 0),
                std::min(end - all.count, next.count));
    if (is_whole) {
      f(r, std::integral_constant<std::int64_t, kFewKeysBlock>());
    } else {
      f(r, std::integral_constant<std::int64_t, 1>());
    }
    r += is_whole ? kFewKeysBlock : 1;
  }
}

/// Rows of a tile, `rows_per_head` for each of consecutive heads of keys, and where copies of a
/// block of their keys or values have room.
struct FewRows {
  std::int64_t count, rows_per_head;
  float* copy;
};

/// scores[r][i] = q's row i . key r
inline void score_few_rows(const FewRows& rows, Tile<const float> q, const HeadsBlock& keys,
                           const HeadsBlock& next, Tile<float> scores) {
  const float* q_rows[kTileQueries];
  std::int64_t heads[kTileQueries];
  for (std::int64_t i = 0; i < ceil_div(rows.count, kFewRowsBlock) * kFewRowsBlock; ++i) {
    const std::int64_t row = std::min(i, rows.count - 1);  // the last block may repeat it
    q_rows[i] = q.row(row), heads[i] = row / rows.rows_per_head;
  }
  for_each_keys_block(keys, next, [&](std::int64_t r, auto count) HWY_ATTR {
    const HeadsView<const float> k = load_heads(keys.part(r, count), rows.copy);
    for (std::int64_t row = 0; row < rows.count; row += kFewRowsBlock) {
      const float* k_rows[kFewRowsBlock];
      for (std::int64_t i = 0; i < kFewRowsBlock; ++i) k_rows[i] = k.at(0, heads[row + i]);
      const Tile<float> to{scores.row(r) + row, scores.stride};
      if (k_rows[0] == k_rows[kFewRowsBlock - 1]) {
        dot_block<KeysOfRows::kShared, count>(q_rows + row, k_rows, k.token_stride, q.stride, to);
      } else {
        dot_block<KeysOfRows::kOwn, count>(q_rows + row, k_rows, k.token_stride, q.stride, to);
      }
    }
  });
}

/// out's row i += sum over values of p[r][i] * value r
inline void add_few_rows(const FewRows& rows, Tile<const float> p, const HeadsBlock& values,
                         const HeadsBlock& next, Tile<float> out) {
  constexpr std::int64_t kRows = kBlockVectors;
  for_each_keys_block(values, next, [&](std::int64_t r, auto count) HWY_ATTR {
    const HeadsView<const float> v = load_heads(values.part(r, count), rows.copy);
    for (std::int64_t head = 0; head < values.num_heads; ++head) {
      const std::int64_t end = (head + 1) * rows.rows_per_head;
      for (std::int64_t row = head * rows.rows_per_head; row < end;) {
        const Tile<const float> weights{p.row(r) + row, p.stride};
        const Tile<float> to{out.row(row), out.stride};
        if (row + kRows <= end) {
          add_block<kRows, count>(weights, v.at(0, head), v.token_stride, out.stride, to);
        } else {
          add_block<1, count>(weights, v.at(0, head), v.token_stride, out.stride, to);
        }
        row += row + kRows <= end ? kRows : 1;
      }
    }
  });
}

}  // namespace serrate::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // SERRATE_KERNELS_ATTENTION_FEW_ROWS_INL_H_
