#include "src/embedding/agreement.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "serrate/error.h"
#include "src/core/json.h"

namespace serrate {
namespace {

using nlohmann::json;

/// Throws Error (usage) unless the name is UTF-8, which JSON holds alone.
const std::string& checked(const std::string& name) {
  json_string(name);
  return name;
}

std::string describe(std::span<const EmbeddingTable> tables, const ShardingPlan& plan,
                     const EmbeddingOptions& options) {
  json all{{"plan", json::parse(plan_to_json(plan))}, {"tables", json::array()}};
  for (const EmbeddingTable& table : tables) {
    for (const std::string& feature : table.features) checked(feature);
    all["tables"].push_back({{"name", checked(table.name)},
                             {"num_rows", table.num_rows},
                             {"dim", table.dim},
                             {"pooling", table.pooling == PoolingType::kSum ? "sum" : "mean"},
                             {"features", table.features},
                             {"init_scale", table.init_scale}});
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

struct Difference {
  std::string path;  // "plan.tables[2].shards[0].rank"
  std::string first, other;
};

// The first place where two descriptions differ.
std::optional<Difference> find_difference(const json* first, const json* other,
                                          const std::string& path) {
  const auto text = [](const json* value) { return value ? value->dump() : "nothing"; };
  if (first && other && *first == *other) return std::nullopt;
  if (first && other && first->is_object() && other->is_object()) {
    json names = *first;
    names.update(*other);
    for (const auto& [name, value] : names.items()) {
      const std::string member = path.empty() ? name : path + "." + name;
      const json* a = first->contains(name) ? &first->at(name) : nullptr;
      const json* b = other->contains(name) ? &other->at(name) : nullptr;
      if (auto found = find_difference(a, b, member)) return found;
    }
  }
  if (first && other && first->is_array() && other->is_array()) {
    for (std::size_t i = 0; i < std::max(first->size(), other->size()); ++i) {
      const json* a = i < first->size() ? &(*first)[i] : nullptr;
      const json* b = i < other->size() ? &(*other)[i] : nullptr;
      if (auto found = find_difference(a, b, fmt::format("{}[{}]", path, i))) return found;
    }
  }
  return Difference{path, text(first), text(other)};
}

}  // namespace

void check_agreement(std::span<const EmbeddingTable> tables, const ShardingPlan& plan,
                     const EmbeddingOptions& options, Communicator& communicator) {
  const auto described =
      communicator.gather_strings("embedding_agreement", describe(tables, plan, options));
  for (std::size_t rank = 1; rank < described.size(); ++rank) {
    if (described[rank] == described[0]) continue;
    const json first = json::parse(described[0]), other = json::parse(described[rank]);
    const Difference found = find_difference(&first, &other, "").value();
    throw usage_error(
        fmt::format("rank {} differs from rank 0 in {}: {} there, {} on rank 0 (all ranks need the "
                    "same tables, "
                    "plan and options) start every rank with the same files and options",
                    rank, found.path, found.other, found.first));
  }
}

}  // namespace serrate
