#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "kernels/shapes.h"
#include "kernels/simd/targets.h"
#include "serrate/buffer.h"
#include "serrate/kernels/sampled_softmax.h"

// Tokens go in tiles, a tile per thread at a time. With e = exp(logit - max) of a tile's tokens
// for the negatives kept, d_hidden needs e . negatives, and d_negatives needs e^T . hidden, which
// adds up over tokens: threads then take blocks of negatives. Each sum runs in the order of the
// tokens or of the negatives, so the number of threads changes no bits. Rows that products read or
// write as vectors are padded to 16 floats, whole vectors on any target.
#ifndef SERRATE_KERNELS_SAMPLED_SOFTMAX_TILE
#define SERRATE_KERNELS_SAMPLED_SOFTMAX_TILE
namespace serrate {

constexpr std::int64_t kSoftmaxTile = 64;    // tokens
constexpr std::int64_t kNegativeBlock = 64;  // rows of d_negatives

// SampledSoftmax as the CPU reads it.
struct HostSampledSoftmax {
  MatrixView<const float> hidden, targets, negatives;
  std::span<const std::int64_t> target_ids, negative_ids;
  float inverse_temperature, d_loss;
  MatrixView<float> d_hidden, d_targets;
};

// Where each id is among the negatives, to be searched by id.
using NegativeIndex = std::vector<std::pair<std::int64_t, std::int64_t>>;

// What all tiles of a call read.
struct SoftmaxNegatives {
  NegativeIndex index;
  MatrixView<float> rows;        // [num_negatives, padded dim]
  MatrixView<float> transposed;  // [dim, padded num_negatives], divided by the temperature
};

// Tokens of the batch and what is kept of them.
struct SoftmaxTile {
  std::int64_t begin, end;
  MatrixView<float> e;             // [end - begin, padded num_negatives]
  MatrixView<float> scaled;        // [end - begin, padded dim]: hidden, in d_negatives' share
  MatrixView<float> d_hidden_sum;  // [end - begin, padded dim]
};

}  // namespace serrate
#endif

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/dense/cpu/sampled_softmax.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "kernels/simd/gemm-inl.h"
#include "kernels/simd/math-inl.h"
#include "kernels/simd/pack-inl.h"
#include "kernels/simd/rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace serrate::HWY_NAMESPACE {

HWY_INLINE float max_of(const float* x, std::int64_t size, float at_least) {
  FloatVector max = hn::Set(kFloats, at_least);
  for_each_vector(size, [&](auto lanes, std::int64_t c)
                            HWY_ATTR { max = hn::Max(max, lanes.select(lanes.load(x + c), max)); });
  return hn::GetLane(hn::MaxOfLanes(kFloats, max));
}

// x = exp(x - max); returns their sum.
HWY_INLINE float exp_and_sum(float* x, std::int64_t size, float max) {
  const FloatVector shift = hn::Set(kFloats, max);
  FloatVector sum = hn::Zero(kFloats);
  for_each_vector(size, [&](auto lanes, std::int64_t c) HWY_ATTR {
    const FloatVector e = Exp(kFloats, hn::Sub(lanes.load(x + c), shift));
    lanes.store(e, x + c);
    sum = hn::Add(sum, lanes.select(e, hn::Zero(kFloats)));
  });
  return sum_lanes(sum);
}

// y = a (x - b z)
HWY_INLINE void scaled_difference(float a, const float* x, float b, const float* z, float* y,
                                  std::int64_t size) {
  const FloatVector a_lanes = hn::Set(kFloats, a), b_lanes = hn::Set(kFloats, b);
  for_each_vector(size, [&](auto lanes, std::int64_t c) HWY_ATTR {
    const FloatVector difference = hn::NegMulAdd(b_lanes, lanes.load(z + c), lanes.load(x + c));
    lanes.store(hn::Mul(a_lanes, difference), y + c);
  });
}

void mask_hits(const NegativeIndex& index, std::int64_t target_id, float* logits) {
  auto hit = std::lower_bound(index.begin(), index.end(), std::pair{target_id, std::int64_t{0}});
  for (; hit != index.end() && hit->first == target_id; ++hit) {
    logits[hit->second] = -std::numeric_limits<float>::infinity();
  }
}

template <Left kLeft>
void add_product(const MatrixView<const float>& a, const MatrixView<const float>& b,
                 const MatrixView<float>& c, Into into) {
  multiply<kLeft>(c.rows, c.cols, {a.data, a.stride}, {b.data, b.stride}, {c.data, c.stride}, into,
                  [&](std::int64_t, std::int64_t) { return Extent{0, 0, b.rows}; });
}

void prepare_negatives(const HostSampledSoftmax& args, const SoftmaxNegatives& negatives) {
  const auto& rows = args.negatives;
  const Tile<const float> from{rows.data, rows.stride};
  copy_rows(from, rows.rows, rows.cols, {negatives.rows.data, negatives.rows.stride});
  transpose_rows(from, rows.rows, rows.cols, args.inverse_temperature,
                 {negatives.transposed.data, negatives.transposed.stride});
}

// The loss of a tile's tokens, their d_hidden and d_targets, and what d_negatives needs of them.
// With total = sum of e, the target's included: d_logit is g e / total for a negative, and for the
// target minus the sum of those (1 - p itself would be rounding error where p is nearly 1).
double softmax_tile(const HostSampledSoftmax& args, const SoftmaxNegatives& negatives,
                    const SoftmaxTile& tile) {
  const std::int64_t dim = args.hidden.cols, num_negatives = args.negatives.rows;
  add_product<Left::kAsIs>(args.hidden.middle_rows(tile.begin, tile.end), negatives.transposed,
                           tile.e, Into::kOverwrite);
  double loss = 0;
  float others[kSoftmaxTile], scales[kSoftmaxTile];  // sum of the negatives' e, g / total
  for (std::int64_t t = tile.begin; t < tile.end; ++t) {
    const std::int64_t i = t - tile.begin;
    float* e = tile.e.row(i);
    mask_hits(negatives.index, args.target_ids[t], e);
    const float target =
        args.inverse_temperature * dot(args.hidden.row(t), args.targets.row(t), dim);
    const float max = max_of(e, num_negatives, target);
    others[i] = exp_and_sum(e, num_negatives, max);
    const double total = std::exp(double{target} - max) + others[i];
    loss += std::log(total) + (double{max} - target);
    scales[i] = static_cast<float>(args.d_loss * args.inverse_temperature / total);
    scale_row(scales[i], args.hidden.row(t), tile.scaled.row(i), dim);
  }
  if (args.d_targets.data) {
    for (std::int64_t i = 0; i < tile.e.rows; ++i) {
      scale_row(-others[i], tile.scaled.row(i), args.d_targets.row(tile.begin + i), dim);
    }
  }
  if (args.d_hidden.data) {
    add_product<Left::kAsIs>(tile.e, negatives.rows, tile.d_hidden_sum, Into::kOverwrite);
    for (std::int64_t i = 0; i < tile.e.rows; ++i) {
      const std::int64_t t = tile.begin + i;
      scaled_difference(scales[i], tile.d_hidden_sum.row(i), others[i], args.targets.row(t),
                        args.d_hidden.row(t), dim);
    }
  }
  return loss;
}

// What the tokens of a batch add to some rows of d_negatives.
void add_negative_gradients(const SoftmaxTile& batch, RowRange rows,
                            const MatrixView<float>& d_negatives) {
  add_product<Left::kTransposed>(batch.e.columns(rows.begin, rows.end), batch.scaled,
                                 d_negatives.middle_rows(rows.begin, rows.end), Into::kAdd);
}

}  // namespace serrate::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace serrate {
HWY_EXPORT(prepare_negatives);
HWY_EXPORT(softmax_tile);
HWY_EXPORT(add_negative_gradients);

namespace {

// Zeros, so that what the padding holds is never an odd number to multiply by.
struct PaddedMatrix {
  PaddedMatrix(std::int64_t rows, std::int64_t cols, const Stream& stream)
      : buffer(Buffer<float>::zeros(rows * round_up(cols), stream)),
        view(host_view(buffer.span(), stream).data(), rows, round_up(cols)) {}
  static std::int64_t round_up(std::int64_t cols) { return (cols + 15) / 16 * 16; }

  Buffer<float> buffer;
  MatrixView<float> view;
};

NegativeIndex index_negatives(std::span<const std::int64_t> ids) {
  NegativeIndex index;
  index.reserve(ids.size());
  for (std::int64_t i = 0; i < std::ssize(ids); ++i) index.emplace_back(ids[i], i);
  std::sort(index.begin(), index.end());
  return index;
}

SoftmaxTile part_of(const SoftmaxTile& batch, std::int64_t begin, std::int64_t end) {
  const std::int64_t first = begin - batch.begin, last = end - batch.begin;
  return {begin, end, batch.e.middle_rows(first, last), batch.scaled.middle_rows(first, last),
          batch.d_hidden_sum.middle_rows(first, last)};
}

}  // namespace

template <>
void sampled_softmax_on<DeviceType::kCpu>(const SampledSoftmax& softmax, DeviceSpan<double> loss,
                                          const Stream& stream) {
  const HostSampledSoftmax args{host_view(softmax.hidden, stream),
                                host_view(softmax.targets, stream),
                                host_view(softmax.negatives, stream),
                                host_view(softmax.target_ids, stream),
                                host_view(softmax.negative_ids, stream),
                                softmax.inverse_temperature,
                                softmax.d_loss,
                                host_view(softmax.d_hidden, stream),
                                host_view(softmax.d_targets, stream)};
  const MatrixView<float> d_negatives = host_view(softmax.d_negatives, stream);
  const std::int64_t n = args.hidden.rows, dim = args.hidden.cols;
  const std::int64_t num_negatives = args.negatives.rows;
  const std::int64_t batch_size = std::min(n, kSoftmaxTile * stream.num_threads());
  const PaddedMatrix rows(num_negatives, dim, stream), transposed(dim, num_negatives, stream);
  const SoftmaxNegatives negatives{index_negatives(args.negative_ids), rows.view, transposed.view};
  HWY_DYNAMIC_DISPATCH(prepare_negatives)(args, negatives);
  const PaddedMatrix e(batch_size, num_negatives, stream), scaled(batch_size, dim, stream);
  const PaddedMatrix d_hidden_sum(batch_size, dim, stream);
  const PaddedMatrix d_negatives_sum(num_negatives, dim, stream);
  std::vector<double> tile_losses((n + kSoftmaxTile - 1) / kSoftmaxTile);
#pragma omp parallel num_threads(stream.num_threads())
  for (std::int64_t first = 0; first < n; first += batch_size) {
    const std::int64_t last = std::min(n, first + batch_size);
    const SoftmaxTile batch =
        part_of({first, n, e.view, scaled.view, d_hidden_sum.view}, first, last);
#pragma omp for schedule(static)
    for (std::int64_t begin = first; begin < last; begin += kSoftmaxTile) {
      const SoftmaxTile tile = part_of(batch, begin, std::min(last, begin + kSoftmaxTile));
      tile_losses[begin / kSoftmaxTile] = HWY_DYNAMIC_DISPATCH(softmax_tile)(args, negatives, tile);
    }
    if (!d_negatives.data) continue;
#pragma omp for schedule(static)
    for (std::int64_t begin = 0; begin < num_negatives; begin += kNegativeBlock) {
      const RowRange block{begin, std::min(num_negatives, begin + kNegativeBlock)};
      HWY_DYNAMIC_DISPATCH(add_negative_gradients)(batch, block, d_negatives_sum.view);
    }
  }
  for (std::int64_t r = 0; r < d_negatives.rows; ++r) {
    for (std::int64_t c = 0; c < dim; ++c) d_negatives.row(r)[c] += d_negatives_sum.view.row(r)[c];
  }
  host_view(loss, stream)[0] = std::accumulate(tile_losses.begin(), tile_losses.end(), 0.0);
}

}  // namespace serrate
#endif  // HWY_ONCE
