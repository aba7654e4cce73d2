#pragma once

#include <cstdint>
#include <span>

#include "serrate/buffer.h"
#include "serrate/matrix_view.h"
#include "serrate/sequence_model_options.h"

namespace serrate {

/// What the head scores: hidden states against the item rows of the target and the negatives.
struct ItemHeadBatch {
  MatrixView<const float> hidden;     // [num_tokens, dim]
  MatrixView<const float> targets;    // [num_tokens, dim]
  MatrixView<const float> negatives;  // [num_negatives, dim]
  std::span<const std::int64_t> target_ids, negative_ids;
  float d_loss = 1;                       // 1 / tokens of all ranks
  MatrixView<float> d_hidden, d_targets;  // overwritten
  MatrixView<float> d_negatives;          // added to
};

/// Scores by the tied item table, cross-entropy over target and shared negatives; with
/// l2_normalize both sides are put on the unit sphere first.
class ItemHead {
 public:
  explicit ItemHead(const SequenceModelOptions& options) : options_(options) {}

  /// loss[0] = the sum over this rank's tokens; the gradients are of d_loss times it.
  void forward_backward(const ItemHeadBatch& batch, std::span<double> loss, const Stream& stream);

  std::int64_t activation_bytes() const;

 private:
  /// A matrix with its rows scaled to length one, and those lengths.
  struct Normalized {
    Buffer<float> rows, norms;
    MatrixView<const float> forward(MatrixView<const float> x, const Stream& stream);
    void backward(MatrixView<float> d_x, const Stream& stream);
  };

  SequenceModelOptions options_;
  Normalized hidden_, targets_, negatives_;
  Buffer<float> d_negatives_;  // [num_negatives, dim]
};

}  // namespace serrate
