#pragma once

#include <cstdint>

#include "serrate/buffer.h"
#include "serrate/sequence_model_options.h"

namespace serrate {

/// What the head scores: hidden states against the item rows of the target and the negatives.
struct ItemHeadBatch {
  DeviceMatrix<const float> hidden;     // [num_tokens, dim]
  DeviceMatrix<const float> targets;    // [num_tokens, dim]
  DeviceMatrix<const float> negatives;  // [num_negatives, dim]
  DeviceSpan<const std::int64_t> target_ids, negative_ids;
  float d_loss = 1;                         // 1 / tokens of all ranks
  DeviceMatrix<float> d_hidden, d_targets;  // overwritten
  DeviceMatrix<float> d_negatives;          // added to
};

/// Scores by the tied item table, cross-entropy over target and shared negatives; with
/// l2_normalize both sides are put on the unit sphere first.
class ItemHead {
 public:
  explicit ItemHead(const SequenceModelOptions& options) : options_(options) {}

  /// loss[0] = the sum over this rank's tokens; the gradients are of d_loss times it.
  void forward_backward(const ItemHeadBatch& batch, DeviceSpan<double> loss, const Stream& stream);

  std::int64_t activation_bytes() const;

 private:
  /// A matrix with its rows scaled to length one, and those lengths.
  struct Normalized {
    Buffer<float> rows, norms;
    DeviceMatrix<const float> forward(DeviceMatrix<const float> x, const Stream& stream);
    void backward(DeviceMatrix<float> d_x, const Stream& stream);
  };

  SequenceModelOptions options_;
  Normalized hidden_, targets_, negatives_;
  Buffer<float> d_negatives_;  // [num_negatives, dim], of normalized rows
};

}  // namespace serrate
