#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "serrate/kernels/activation.h"
#include "serrate/kernels/linear.h"

namespace serrate {

/// A SASRec-class sequence model (Kang & McAuley, ICDM'18): token = pooled event features +
/// position, pre-norm transformer blocks, scores by the item table.
struct SequenceModelOptions {
  std::int64_t dim = 64;
  std::int64_t num_blocks = 2;
  std::int64_t num_heads = 2;
  std::int64_t feed_forward_dim = 0;  ///< 0 means 4 * dim
  std::int64_t max_length = 200;      ///< input events a sequence keeps: the latest ones
  float dropout = 0.2f;
  Activation activation = Activation::kGelu;
  float temperature = 1;
  bool l2_normalize = false;  ///< score by cosine / temperature
  /// For products of linear layers, the head and attention; kBf16: for what the encoder stores,
  /// too.
  Precision precision = Precision::kFp32;
  std::vector<std::string> features = {};  ///< categorical features that join the item in a token
};

}  // namespace serrate
