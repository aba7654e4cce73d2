#pragma once

#include <cstdint>

#include "serrate/device_span.h"
#include "serrate/kernels/linear.h"
#include "serrate/stream.h"

namespace serrate {

/// Cross-entropy of each token's target against shared sampled negatives (Jean et al. 2015; with
/// uniform sampling the correction term is a constant and drops out):
/// logits = hidden . [target row, negative rows] / temperature. A negative that is the token's own
/// target is left out: with all items as negatives this is the full softmax. Tiled over tokens: no
/// [n, num_negatives] buffer.
struct SampledSoftmax {
  DeviceMatrix<const float> hidden;             ///< [n, dim]
  DeviceMatrix<const float> targets;            ///< [n, dim], the target's row for each token
  DeviceMatrix<const float> negatives;          ///< [num_negatives, dim]
  DeviceSpan<const std::int64_t> target_ids;    ///< [n]
  DeviceSpan<const std::int64_t> negative_ids;  ///< [num_negatives]
  float inverse_temperature = 1;

  float d_loss = 1;  ///< gradient of the total loss by each token's loss: 1 / tokens of all ranks
  /// Written, and d_negatives added to, when they have data; the loss alone is computed otherwise.
  DeviceMatrix<float> d_hidden{}, d_targets{}, d_negatives{};

  /// What tensor cores get of the factors: rows of hidden and negatives, and for d_hidden and
  /// d_negatives the exponentials. The target's logit, d_targets and all sums are fp32, and so are
  /// rows of more than 256 columns, in tf32 of more than 128 where a block has only 99 KiB of
  /// shared memory. On the CPU kFp32 and nothing else.
  Precision precision = Precision::kFp32;
};

/// loss[0] = the sum over tokens of -log softmax(target), in double. Deterministic. On a GPU rows
/// have at most 4,096 columns.
void sampled_softmax(const SampledSoftmax& args, DeviceSpan<double> loss, const Stream& stream);

template <DeviceType D>
void sampled_softmax_on(const SampledSoftmax&, DeviceSpan<double> loss, const Stream&);

}  // namespace serrate
