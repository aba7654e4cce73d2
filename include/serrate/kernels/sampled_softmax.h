#pragma once

#include <cstdint>
#include <span>

#include "serrate/matrix_view.h"
#include "serrate/stream.h"

namespace serrate {

/// Cross-entropy of each token's target against shared sampled negatives (Jean et al. 2015; with
/// uniform sampling the correction term is a constant and drops out):
/// logits = hidden . [target row, negative rows] / temperature. A negative that is the token's own
/// target is left out when `accidental_hits` says so. With all items as negatives and hits masked
/// this is the full softmax. Tiled over tokens: no [n, num_negatives] buffer.
struct SampledSoftmax {
  MatrixView<const float> hidden;              ///< [n, dim]
  MatrixView<const float> targets;             ///< [n, dim], the target's row for each token
  MatrixView<const float> negatives;           ///< [num_negatives, dim]
  std::span<const std::int64_t> target_ids;    ///< [n]
  std::span<const std::int64_t> negative_ids;  ///< [num_negatives]
  float inverse_temperature = 1;
  enum class AccidentalHits { kMask, kKeep } accidental_hits = AccidentalHits::kMask;

  float d_loss = 1;  ///< gradient of the total loss by each token's loss: 1 / tokens of all ranks
  /// Written when they have data; the loss alone is computed otherwise.
  MatrixView<float> d_hidden{}, d_targets{}, d_negatives{};
};

/// loss[0] = the sum over tokens of -log softmax(target), in double. Deterministic.
void sampled_softmax(const SampledSoftmax& args, std::span<double> loss, const Stream& stream);

template <DeviceType D>
void sampled_softmax_on(const SampledSoftmax&, std::span<double> loss, const Stream&);

}  // namespace serrate
