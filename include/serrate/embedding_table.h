#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "serrate/data_type.h"

namespace serrate {

enum class PoolingType { kSum, kMean };

/// A table and the features that look it up, as TorchRec's EmbeddingBagConfig. A feature may feed
/// several tables and a table may serve several features; each pair is one lookup with one output.
struct EmbeddingTable {
  std::string name;
  std::int64_t num_rows = 0;
  std::int64_t dim = 0;
  PoolingType pooling = PoolingType::kSum;
  std::vector<std::string> features = {};
  /// Rows start uniform in [-init_scale, init_scale); 0 means 1 / sqrt(num_rows), as in TorchRec.
  float init_scale = 0;
  /// Type of weights, in memory and checkpoints; optimizer state and arithmetic are float32. In 16
  /// bits an update rounds the rows it changes up or down at random, so that their mean is what
  /// float32 has; see TableRounding. First weights are rounded to nearest.
  DataType data_type = DataType::kFloat32;
};

/// How a row is changed by its gradient g, once per step. State is per row of the table.
/// Definitions: sgd w -= lr g; adagrad s += g^2, w -= lr g / (sqrt(s) + eps);
/// row_wise_adagrad s += mean(g^2) over the row, one s per row (Mudigere et al. 2021);
/// adam as Kingma & Ba 2015 on the rows of the step alone ("lazy"), bias-corrected by the step
/// number of the whole training.
enum class SparseOptimizer { kSgd, kAdagrad, kRowWiseAdagrad, kAdam };

struct SparseOptimizerOptions {
  SparseOptimizer type = SparseOptimizer::kRowWiseAdagrad;
  float learning_rate = 0.05f;
  float eps = 1e-8f;
  float beta1 = 0.9f;    ///< adam
  float beta2 = 0.999f;  ///< adam
};

/// "sgd", "adagrad", "row_wise_adagrad", "adam"; from_string throws Error (usage) otherwise.
std::string to_string(SparseOptimizer type);
SparseOptimizer sparse_optimizer_from_string(const std::string& name);

}  // namespace serrate
