#include "src/train/model_state.h"

#include <fmt/format.h>

#include <algorithm>

#include "src/io/text_file.h"
#include "src/train/next_item_batch.h"
#include "src/train/together.h"

namespace serrate {
namespace {

ShardingPlan load_plan(const std::string& path, const std::vector<EmbeddingTable>& tables,
                       int world_size, int ranks_per_node) {
  if (path.empty()) return default_plan(tables, world_size);
  ShardingPlan plan = plan_from_json(read_text_file(path));
  if (ranks_per_node > 0 && plan.ranks_per_node > 0 && ranks_per_node != plan.ranks_per_node) {
    throw usage_error(
        fmt::format("{}: ranks_per_node: is {}, but --ranks-per-node is {} (tables would not be on "
                    "the nodes they were planned for) make a plan for these nodes",
                    path, plan.ranks_per_node, ranks_per_node));
  }
  for (std::size_t i = 0; i < plan.tables.size(); ++i) {
    const auto kernel = plan.tables[i].kernel;
    if (kernel == ComputeKernel::kFusedUvm || kernel == ComputeKernel::kFusedUvmCaching) {
      throw usage_error(
          fmt::format("sharding plan: tables[{}].kernel: {} (the trainer keeps all rows in the "
                      "memory of their rank) plan with the kernels dense and fused",
                      i, to_string(*kernel)));
    }
  }
  return plan;
}

}  // namespace

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
                      .features = {name}});
  }
  auto& item_features = tables.front().features;
  item_features.insert(item_features.end(), {kTargetFeature, kNegativeFeature});
  return tables;
}

TrainState make_train_state(const Dataset& dataset, const TrainOptions& options,
                            const std::string& plan_path, Communicator& communicator,
                            const Stream& stream) {
  std::vector<EmbeddingTable> tables;
  ShardingPlan plan;
  together(communicator, "plan", [&] {
    tables = tables_of(dataset, options);
    plan = load_plan(plan_path, tables, communicator.size(), options.ranks_per_node);
  });
  return {std::move(tables), std::move(plan), options, communicator, stream};
}

}  // namespace serrate
