#include "src/embedding/agreement.h"

#include "comm/agreement.h"
#include "src/core/json.h"

namespace serrate {
namespace {

using nlohmann::json;

/// Throws Error (usage) unless the name is UTF-8, which JSON holds alone.
std::string checked(const std::string& name) {
  json_string(name);
  return name;
}

std::string describe(std::span<const EmbeddingTable> tables, const ShardingPlan& plan,
                     const EmbeddingOptions& options) {
  json all{{"plan", parse_json(plan_to_json(plan), "sharding plan")}, {"tables", json::array()}};
  for (const EmbeddingTable& table : tables) {
    for (const std::string& feature : table.features) checked(feature);
    all["tables"].push_back({{"name", checked(table.name)},
                             {"num_rows", table.num_rows},
                             {"dim", table.dim},
                             {"pooling", table.pooling == PoolingType::kSum ? "sum" : "mean"},
                             {"features", table.features},
                             {"init_scale", table.init_scale},
                             {"data_type", to_string(table.data_type)}});
  }
  const SparseOptimizerOptions& optimizer = options.optimizer;
  all["options"] = {{"optimizer", to_string(optimizer.type)},
                    {"learning_rate", optimizer.learning_rate},
                    {"eps", optimizer.eps},
                    {"beta1", optimizer.beta1},
                    {"beta2", optimizer.beta2},
                    {"invalid_ids", static_cast<int>(options.invalid_ids)},
                    {"split_bags", static_cast<int>(options.split_bags)},
                    {"seed", options.seed}};
  return all.dump();
}

}  // namespace

void check_agreement(std::span<const EmbeddingTable> tables, const ShardingPlan& plan,
                     const EmbeddingOptions& options, Communicator& communicator) {
  require_agreement(communicator, "", describe(tables, plan, options));
}

}  // namespace serrate
