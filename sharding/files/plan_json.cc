#include <fmt/format.h>

#include <iterator>
#include <limits>
#include <tuple>

#include "serrate/error.h"
#include "serrate/sharding_plan.h"
#include "src/core/json.h"

namespace serrate {
namespace {

constexpr std::int64_t kPlanVersion = 1;

// [begin, end) as a JSON array of two integers.
std::pair<std::int64_t, std::int64_t> range_from(const JsonField& field) {
  const std::vector<JsonField> ends = field.array();
  if (ends.size() != 2)
    field.fail(fmt::format("must be [begin, end] (got {} values)", ends.size()));
  return {ends[0].int64(), ends[1].int64()};
}

// Ranges are checked against the tables by validate_plan; this one has to fit its type.
int int_from(const JsonField& field, int least = 0) {
  return static_cast<int>(field.int64(least, std::numeric_limits<int>::max()));
}

Shard shard_from(const JsonField& field) {
  field.allow_only({"rank", "rows", "columns"});
  Shard shard;
  shard.rank = int_from(field.at("rank"));
  std::tie(shard.row_begin, shard.row_end) = range_from(field.at("rows"));
  std::tie(shard.column_begin, shard.column_end) = range_from(field.at("columns"));
  return shard;
}

TableSharding table_from(const JsonField& field) {
  field.allow_only({"table", "type", "kernel", "shards"});
  TableSharding sharding;
  sharding.table = field.at("table").string();
  sharding.type = field.at("type").string_as(sharding_type_from_string);
  if (const auto kernel = field.find("kernel")) {
    sharding.kernel = kernel->string_as(compute_kernel_from_string);
  }
  for (const JsonField& shard : field.at("shards").array()) {
    sharding.shards.push_back(shard_from(shard));
  }
  return sharding;
}

double cost_from(const JsonField& field) {
  const double ms = field.number();
  if (ms < 0) field.fail(fmt::format("must not be negative (got {})", ms));
  return ms;
}

PlanProvenance provenance_from(const JsonField& field) {
  field.allow_only({"serrate", "model", "topology", "objective", "estimator", "cost_ms", "bound_ms",
                    "gap", "seed"});
  if (const auto gap = field.find("gap")) gap->number();  // for people; follows from the others
  return {.serrate = field.at("serrate").string(),
          .model = field.at("model").string(),
          .topology = field.at("topology").string(),
          .objective = field.at("objective").string(),
          .estimator = field.at("estimator").string(),
          .cost_ms = cost_from(field.at("cost_ms")),
          .bound_ms = cost_from(field.at("bound_ms")),
          .seed = field.at("seed").uint64()};
}

std::string to_json(const PlanProvenance& p) {
  // dump() writes the shortest digits that read back as the same number.
  nlohmann::ordered_json json{{"serrate", p.serrate},     {"model", p.model},
                              {"topology", p.topology},   {"objective", p.objective},
                              {"estimator", p.estimator}, {"cost_ms", p.cost_ms},
                              {"bound_ms", p.bound_ms}};
  if (p.bound_ms > 0) json["gap"] = p.cost_ms / p.bound_ms - 1;
  json["seed"] = p.seed;
  std::string text = json.dump(2);
  for (std::size_t at = text.find('\n'); at != std::string::npos; at = text.find('\n', at + 1)) {
    text.insert(at + 1, "  ");
  }
  return text;
}

}  // namespace

std::string plan_to_json(const ShardingPlan& plan) {
  std::string json;
  json +=
      fmt::format("{{\n  \"version\": {},\n  \"world_size\": {},\n", kPlanVersion, plan.world_size);
  if (plan.ranks_per_node > 0) {
    json += fmt::format("  \"ranks_per_node\": {},\n", plan.ranks_per_node);
  }
  if (plan.provenance) json += fmt::format("  \"provenance\": {},\n", to_json(*plan.provenance));
  json += "  \"tables\": [";
  const char* table_separator = "\n";
  for (const TableSharding& table : plan.tables) {
    json += fmt::format("{}    {{\n      \"table\": {},\n      \"type\": \"{}\",\n",
                        table_separator, json_string(table.table), to_string(table.type));
    if (table.kernel) json += fmt::format("      \"kernel\": \"{}\",\n", to_string(*table.kernel));
    json += "      \"shards\": [";
    const char* shard_separator = "\n";
    for (const Shard& s : table.shards) {
      json += fmt::format("{}        {{\"rank\": {}, \"rows\": [{}, {}], \"columns\": [{}, {}]}}",
                          shard_separator, s.rank, s.row_begin, s.row_end, s.column_begin,
                          s.column_end);
      shard_separator = ",\n";
    }
    json += "\n      ]\n    }";
    table_separator = ",\n";
  }
  json += "\n  ]\n}\n";
  return json;
}

ShardingPlan plan_from_json(const std::string& json) {
  const auto document = parse_json(json, "sharding plan");
  const JsonField root(document, "sharding plan");
  root.allow_only({"version", "world_size", "ranks_per_node", "provenance", "tables"});
  root.at("version").int64(kPlanVersion, kPlanVersion);
  ShardingPlan plan;
  plan.world_size = int_from(root.at("world_size"));
  if (const auto ranks = root.find("ranks_per_node")) {
    plan.ranks_per_node = int_from(*ranks, 1);
  }
  if (const auto provenance = root.find("provenance")) {
    plan.provenance = provenance_from(*provenance);
  }
  for (const JsonField& table : root.at("tables").array()) plan.tables.push_back(table_from(table));
  return plan;
}

}  // namespace serrate
