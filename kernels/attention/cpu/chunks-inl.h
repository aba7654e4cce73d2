// What the chunks of a long history leave, and how it is combined. Include in a file that
// foreach_target.h compiles once per target.
#if defined(SERRATE_KERNELS_ATTENTION_CHUNKS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SERRATE_KERNELS_ATTENTION_CHUNKS_INL_H_
#undef SERRATE_KERNELS_ATTENTION_CHUNKS_INL_H_
#else
#define SERRATE_KERNELS_ATTENTION_CHUNKS_INL_H_
#endif

#include <algorithm>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/attention/cpu/bias-inl.h"
#include "kernels/attention/cpu/forward_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace serrate::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// What a chunk of keys leaves of the rows of a tile: out [rows, head_dim], max and sum [rows].
struct Partials {
  Tile<float> out;
  float *max, *sum;
};

inline Partials partials_at(const ForwardTile& tile, std::int64_t chunk) {
  const AttentionView& args = tile.args();
  const std::int64_t rows_before = (chunk * args.num_heads + tile.task.head) * tile.count;
  float* out = tile.call.partials + tile.task.partials + rows_before * (args.head_dim + 2);
  float* max = out + tile.rows() * args.head_dim;
  return {{out, args.head_dim}, max, max + tile.rows()};
}

inline void write_partials(const ForwardTile& tile, const ForwardScratch& scratch) {
  const Partials to = partials_at(tile, tile.task.chunk);
  copy_rows({scratch.out, tile.padded_dim()}, tile.rows(), tile.args().head_dim, to.out);
  std::copy_n(scratch.max, tile.rows(), to.max);
  std::copy_n(scratch.sum, tile.rows(), to.sum);
}

// The chunks of a tile become as if there had been one.
inline void combine_chunks(const ForwardTile& tile, ForwardScratch& scratch) {
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

}  // namespace serrate::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // SERRATE_KERNELS_ATTENTION_CHUNKS_INL_H_
