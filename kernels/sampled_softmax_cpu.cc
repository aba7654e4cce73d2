#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "kernels/blas.h"
#include "serrate/buffer.h"
#include "serrate/kernels/sampled_softmax.h"

// Tokens go in batches, a batch in tiles. The probabilities of a batch are kept: its tiles are
// independent of each other (one thread each), and then so are blocks of negatives, which sum over
// the batch's tokens. Sizes depend on the shapes alone, so threads change no bits.
namespace serrate {
namespace {

constexpr std::int64_t kTile = 64;           // tokens
constexpr std::int64_t kNegativeBlock = 64;  // rows of d_negatives
constexpr std::int64_t kBatchElements = 256 * 1024;

std::int64_t tokens_per_batch(std::int64_t num_negatives) {
  const std::int64_t tiles = kBatchElements / (kTile * std::max<std::int64_t>(num_negatives, 1));
  return kTile * std::clamp<std::int64_t>(tiles, 1, 8);
}

// Where each id is among the negatives, to be searched by id.
using NegativeIndex = std::vector<std::pair<std::int64_t, std::int64_t>>;

NegativeIndex index_negatives(const SampledSoftmax& args) {
  NegativeIndex index;
  if (args.accidental_hits == SampledSoftmax::AccidentalHits::kKeep) return index;
  index.reserve(args.negative_ids.size());
  for (std::int64_t i = 0; i < std::ssize(args.negative_ids); ++i) {
    index.emplace_back(args.negative_ids[i], i);
  }
  std::sort(index.begin(), index.end());
  return index;
}

void mask_hits(const NegativeIndex& index, std::int64_t target_id, float* logits) {
  auto hit = std::lower_bound(index.begin(), index.end(), std::pair{target_id, std::int64_t{0}});
  for (; hit != index.end() && hit->first == target_id; ++hit) {
    logits[hit->second] = -std::numeric_limits<float>::infinity();
  }
}

float dot(const float* a, const float* b, std::int64_t size) {
  float sum = 0;
  for (std::int64_t i = 0; i < size; ++i) sum += a[i] * b[i];
  return sum;
}

struct TokenResult {
  double loss;
  float d_target_logit;  // by the logit before the temperature
};

// Logits of one token's negatives become the gradient of the loss by them, before temperature.
TokenResult softmax_row(float target_logit, float* logits, std::int64_t size, float d_loss) {
  float max = target_logit;
  for (std::int64_t i = 0; i < size; ++i) max = std::max(max, logits[i]);
  float others = 0;
  for (std::int64_t i = 0; i < size; ++i) others += logits[i] = std::exp(logits[i] - max);
  const double total = std::exp(static_cast<double>(target_logit - max)) + others;
  const float scale = static_cast<float>(d_loss / total);
  for (std::int64_t i = 0; i < size; ++i) logits[i] *= scale;
  // Not 1 - p: what is left of it after rounding is wrong where the target has nearly all.
  return {std::log(total) + (static_cast<double>(max) - target_logit), -others * scale};
}

// Probabilities [tile tokens, num_negatives], d_hidden and d_targets of tokens [begin, end).
double tile_forward(const SampledSoftmax& args, const NegativeIndex& index, std::int64_t begin,
                    std::int64_t end, MatrixView<float> probabilities) {
  gemm(args.inverse_temperature, plain(args.hidden.middle_rows(begin, end)),
       transposed(args.negatives), 0, probabilities);
  double loss = 0;
  const std::int64_t dim = args.hidden.cols;
  for (std::int64_t t = begin; t < end; ++t) {
    float* row = probabilities.row(t - begin);
    mask_hits(index, args.target_ids[t], row);
    const float* hidden = args.hidden.row(t);
    const float* target = args.targets.row(t);
    const TokenResult result =
        softmax_row(args.inverse_temperature * dot(hidden, target, dim), row, probabilities.cols,
                    args.d_loss * args.inverse_temperature);
    loss += result.loss;
    for (std::int64_t c = 0; c < dim && args.d_hidden.data; ++c) {
      args.d_hidden.row(t)[c] = result.d_target_logit * target[c];
    }
    for (std::int64_t c = 0; c < dim && args.d_targets.data; ++c) {
      args.d_targets.row(t)[c] = result.d_target_logit * hidden[c];
    }
  }
  if (args.d_hidden.data) {
    gemm(1, plain(probabilities), plain(args.negatives), 1, args.d_hidden.middle_rows(begin, end));
  }
  return loss;
}

}  // namespace

template <>
void sampled_softmax_on<DeviceType::kCpu>(const SampledSoftmax& args, std::span<double> loss,
                                          const Stream& stream) {
  const std::int64_t n = args.hidden.rows, num_negatives = args.negatives.rows;
  const std::int64_t batch_size = tokens_per_batch(num_negatives);
  const NegativeIndex index = index_negatives(args);
  Buffer<float> probabilities(std::min(batch_size, n) * num_negatives, stream);
  std::vector<double> tile_losses((n + kTile - 1) / kTile);
#pragma omp parallel num_threads(stream.num_threads())
  for (std::int64_t first = 0; first < n; first += batch_size) {
    const std::int64_t last = std::min(n, first + batch_size);
    const MatrixView<float> batch(probabilities.data(), last - first, num_negatives);
#pragma omp for schedule(static)
    for (std::int64_t begin = first; begin < last; begin += kTile) {
      const std::int64_t end = std::min(last, begin + kTile);
      tile_losses[begin / kTile] =
          tile_forward(args, index, begin, end, batch.middle_rows(begin - first, end - first));
    }
    if (!args.d_negatives.data) continue;
#pragma omp for schedule(static)
    for (std::int64_t begin = 0; begin < num_negatives; begin += kNegativeBlock) {
      const std::int64_t end = std::min(num_negatives, begin + kNegativeBlock);
      gemm(1, transposed(batch.columns(begin, end)), plain(args.hidden.middle_rows(first, last)),
           first == 0 ? 0 : 1, args.d_negatives.middle_rows(begin, end));
    }
  }
  if (n == 0 && args.d_negatives.data) {
    for (std::int64_t r = 0; r < num_negatives; ++r) {
      std::fill_n(args.d_negatives.row(r), args.d_negatives.cols, 0.0f);
    }
  }
  loss[0] = 0;
  for (const double tile_loss : tile_losses) loss[0] += tile_loss;
}

}  // namespace serrate
