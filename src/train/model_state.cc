#include "src/train/model_state.h"

#include <fmt/format.h>

#include <algorithm>

#include "comm/together.h"
#include "src/train/next_item_batch.h"

namespace serrate {
std::vector<std::string> token_features(const Dataset& dataset, const SequenceModelOptions& model) {
  std::vector<std::string> names{dataset.features().front().name};
  for (const std::string& name : model.features) {
    dataset.feature_index(name);  // has to exist
    if (std::find(names.begin(), names.end(), name) != names.end()) {
      throw usage_error(fmt::format("feature \"{}\" is named twice (the item is always in)", name));
    }
    names.push_back(name);
  }
  for (const std::string& name : names) {
    if (name == kTargetFeature || name == kNegativeFeature) {
      throw usage_error(
          fmt::format("feature \"{}\" has a name of the trainer's own (rename the "
                      "column and convert again)",
                      name));
    }
  }
  return names;
}

std::vector<EmbeddingTable> tables_of(const Dataset& dataset, const TrainOptions& options) {
  std::vector<EmbeddingTable> tables;
  for (const std::string& name : token_features(dataset, options.model)) {
    const std::int64_t ids = dataset.features()[dataset.feature_index(name)].vocabulary_size;
    tables.push_back({.name = name,
                      .num_rows = ids + (options.invalid_ids == InvalidIds::kOov ? 1 : 0),
                      .dim = options.model.dim,
                      .pooling = PoolingType::kSum,
                      .features = {name},
                      .data_type = options.embedding_precision});
  }
  auto& item_features = tables.front().features;
  item_features.insert(item_features.end(), {kTargetFeature, kNegativeFeature});
  return tables;
}

TrainState make_train_state(const Dataset& dataset, const TrainOptions& options, ShardingPlan plan,
                            Communicator& communicator, const Stream& stream) {
  std::vector<EmbeddingTable> tables;
  together(communicator, "tables", [&] { tables = tables_of(dataset, options); });
  return {std::move(tables), std::move(plan), options, communicator, stream};
}

}  // namespace serrate
