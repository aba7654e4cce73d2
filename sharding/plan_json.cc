#include <fmt/format.h>

#include <iterator>
#include <limits>
#include <tuple>

#include "serrate/error.h"
#include "serrate/sharding_plan.h"
#include "src/core/json.h"

namespace serrate {
namespace {

constexpr std::int64_t kVersion = 1;

// [begin, end) as a JSON array of two integers.
std::pair<std::int64_t, std::int64_t> range_from(const JsonField& field) {
  const std::vector<JsonField> ends = field.array();
  if (ends.size() != 2)
    field.fail(fmt::format("must be [begin, end] (got {} values)", ends.size()));
  return {ends[0].int64(), ends[1].int64()};
}

// Ranges are checked against the tables by validate_plan; this one has to fit its type.
int int_from(const JsonField& field) {
  const std::int64_t value = field.int64();
  if (value < 0 || value > std::numeric_limits<int>::max()) {
    field.fail(fmt::format("must be between 0 and 2147483647 (got {})", value));
  }
  return static_cast<int>(value);
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
  field.allow_only({"table", "type", "shards"});
  TableSharding sharding;
  sharding.table = field.at("table").string();
  const JsonField type = field.at("type");
  try {
    sharding.type = sharding_type_from_string(type.string());
  } catch (const Error& error) {
    type.fail(error.what());
  }
  for (const JsonField& shard : field.at("shards").array()) {
    sharding.shards.push_back(shard_from(shard));
  }
  return sharding;
}

}  // namespace

std::string plan_to_json(const ShardingPlan& plan) {
  std::string json;
  const auto out = std::back_inserter(json);
  fmt::format_to(out, "{{\n  \"version\": {},\n  \"world_size\": {},\n", kVersion, plan.world_size);
  if (plan.ranks_per_node > 0) {
    fmt::format_to(out, "  \"ranks_per_node\": {},\n", plan.ranks_per_node);
  }
  json += "  \"tables\": [";
  const char* table_separator = "\n";
  for (const TableSharding& table : plan.tables) {
    fmt::format_to(out,
                   "{}    {{\n      \"table\": {},\n      \"type\": \"{}\",\n      \"shards\": [",
                   table_separator, json_string(table.table), to_string(table.type));
    const char* shard_separator = "\n";
    for (const Shard& s : table.shards) {
      fmt::format_to(out, "{}        {{\"rank\": {}, \"rows\": [{}, {}], \"columns\": [{}, {}]}}",
                     shard_separator, s.rank, s.row_begin, s.row_end, s.column_begin, s.column_end);
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
  root.allow_only({"version", "world_size", "ranks_per_node", "tables"});
  const JsonField version = root.at("version");
  if (version.int64() != kVersion) {
    version.fail(fmt::format("must be {} (got {}) another version of serrate wrote this plan",
                             kVersion, version.int64()));
  }
  ShardingPlan plan;
  plan.world_size = int_from(root.at("world_size"));
  if (const auto ranks = root.find("ranks_per_node")) {
    plan.ranks_per_node = int_from(*ranks);
    if (plan.ranks_per_node < 1) ranks->fail("must be at least 1 (got 0)");
  }
  for (const JsonField& table : root.at("tables").array()) plan.tables.push_back(table_from(table));
  return plan;
}

}  // namespace serrate
