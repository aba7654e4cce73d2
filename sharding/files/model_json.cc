#include <fmt/format.h>

#include <array>
#include <map>

#include "serrate/planner.h"
#include "sharding/files/quantity.h"
#include "src/core/json.h"

namespace serrate {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::int64_t kModelVersion = 1;
constexpr std::int64_t kMostSamples = std::int64_t{1} << 40;
constexpr std::int64_t kMostColumns = std::int64_t{1} << 30;
constexpr double kMostIds = 1e12;
constexpr double kMostZipf = 10;

// A type's size is all that planning needs of it; the first of a size is what is written.
constexpr std::array<std::pair<const char*, std::int64_t>, 4> kDataTypes{
    {{"fp32", 4}, {"fp16", 2}, {"bf16", 2}, {"int8", 1}}};

double count_from(const JsonField& field) {
  const double count = field.number();
  if (!(count >= 0 && count <= kMostIds)) {
    field.fail(fmt::format("must be between 0 and {} (got {})", kMostIds, count));
  }
  return count;
}

PlannerFeature feature_from(const JsonField& field) {
  field.allow_only({"name", "pooling_factor", "num_poolings", "batch_size"});
  PlannerFeature feature;
  if (const auto name = field.find("name")) feature.name = name->string();
  if (const auto factor = field.find("pooling_factor"))
    feature.pooling_factor = count_from(*factor);
  if (const auto bags = field.find("num_poolings")) feature.num_poolings = count_from(*bags);
  if (const auto size = field.find("batch_size")) feature.batch_size = size->int64(1, kMostSamples);
  return feature;
}

std::int64_t bytes_of_data_type(const JsonField& field) {
  const std::string name = field.string();
  for (const auto& [known, bytes] : kDataTypes) {
    if (name == known) return bytes;
  }
  field.fail(fmt::format("\"{}\" is not a data type (fp32, fp16, bf16 or int8)", name));
}

bool is_pooled(const JsonField& field) {
  const std::string name = field.string();
  if (name == "sum" || name == "mean") return true;
  if (name != "none") field.fail(fmt::format("\"{}\" is not a pooling (sum, mean or none)", name));
  return false;
}

// Each value once, at least one: an empty list would read as "anything".
template <typename T, typename Read>
std::vector<T> set_from(const JsonField& field, Read&& read) {
  std::vector<T> values;
  for (const JsonField& element : field.array()) {
    const T value = read(element);
    if (std::find(values.begin(), values.end(), value) != values.end()) {
      element.fail("is in this list twice");
    }
    values.push_back(value);
  }
  if (values.empty()) field.fail("must not be empty (leave it out to allow all)");
  return values;
}

void read_constraints(const JsonField& field, PlannerTable& table) {
  field.allow_only({"sharding_types", "kernels", "ranks", "min_columns", "group"});
  if (const auto types = field.find("sharding_types")) {
    table.sharding_types = set_from<ShardingType>(
        *types, [](const JsonField& type) { return type.string_as(sharding_type_from_string); });
  }
  if (const auto kernels = field.find("kernels")) {
    table.kernels = set_from<ComputeKernel>(
        *kernels, [](const JsonField& name) { return name.string_as(compute_kernel_from_string); });
  }
  if (const auto ranks = field.find("ranks")) {
    table.ranks = set_from<int>(*ranks, [](const JsonField& rank) {
      return static_cast<int>(rank.int64(0, kMostPlannedRanks - 1));
    });
  }
  if (const auto least = field.find("min_columns"))
    table.min_columns = least->int64(1, kMostColumns);
  if (const auto group = field.find("group")) {
    table.group = group->string();
    if (table.group.empty()) group->fail("must not be empty");
  }
}

PlannerTable planner_table_from(const JsonField& field) {
  field.allow_only({"name", "num_rows", "dim", "data_type", "pooling", "weighted", "optimizer",
                    "zipf_exponent", "features", "constraints"});
  PlannerTable table;
  const JsonField name = field.at("name");
  table.name = name.string();
  if (table.name.empty()) name.fail("must not be empty");
  const JsonField rows = field.at("num_rows");
  table.num_rows = rows.int64(1, kMostPlannedBytes);
  table.dim = field.at("dim").int64(1, kMostColumns);
  if (const auto type = field.find("data_type"))
    table.bytes_per_element = bytes_of_data_type(*type);
  if (table.num_rows > kMostPlannedBytes / table.bytes_per_element / table.dim) {
    rows.fail(fmt::format("makes a table of more than 2^53 bytes (got {} rows of {} x {} bytes)",
                          table.num_rows, table.dim, table.bytes_per_element));
  }
  if (const auto pooling = field.find("pooling")) table.pooled = is_pooled(*pooling);
  if (const auto weighted = field.find("weighted")) table.weighted = weighted->boolean();
  if (const auto optimizer = field.find("optimizer"); optimizer && optimizer->string() != "none") {
    table.optimizer = optimizer->string_as(sparse_optimizer_from_string);
  }
  if (const auto zipf = field.find("zipf_exponent")) {
    table.zipf_exponent = zipf->number();
    if (!(table.zipf_exponent >= 0 && table.zipf_exponent <= kMostZipf)) {
      zipf->fail(fmt::format("must be between 0 and {} (got {})", kMostZipf, table.zipf_exponent));
    }
  }
  const JsonField features = field.at("features");
  for (const JsonField& feature : features.array()) table.features.push_back(feature_from(feature));
  if (table.features.empty()) features.fail("must not be empty (nothing looks the table up)");
  if (const auto constraints = field.find("constraints")) read_constraints(*constraints, table);
  return table;
}

Json json_of(const PlannerFeature& feature) {
  Json json = Json::object();
  if (!feature.name.empty()) json["name"] = feature.name;
  json["pooling_factor"] = feature.pooling_factor;
  json["num_poolings"] = feature.num_poolings;
  if (feature.batch_size > 0) json["batch_size"] = feature.batch_size;
  return json;
}

template <typename T>
Json json_of_names(const std::vector<T>& values) {
  Json names = Json::array();
  for (const T value : values) names.push_back(to_string(value));
  return names;
}

Json constraints_of(const PlannerTable& table) {
  Json json = Json::object();
  if (!table.sharding_types.empty()) json["sharding_types"] = json_of_names(table.sharding_types);
  if (!table.kernels.empty()) json["kernels"] = json_of_names(table.kernels);
  if (!table.ranks.empty()) json["ranks"] = table.ranks;
  if (table.min_columns != PlannerTable{}.min_columns) json["min_columns"] = table.min_columns;
  if (!table.group.empty()) json["group"] = table.group;
  return json;
}

Json json_of(const PlannerTable& table) {
  const auto type = std::ranges::find(kDataTypes, table.bytes_per_element,
                                      [](const auto& entry) { return entry.second; });
  check(type != kDataTypes.end(), "the elements of a table have 1, 2 or 4 bytes");
  Json json{{"name", table.name},
            {"num_rows", table.num_rows},
            {"dim", table.dim},
            {"data_type", type->first},
            {"pooling", table.pooled ? "sum" : "none"},
            {"weighted", table.weighted},
            {"optimizer", table.optimizer ? to_string(*table.optimizer) : "none"},
            {"zipf_exponent", table.zipf_exponent}};
  for (const PlannerFeature& feature : table.features) json["features"].push_back(json_of(feature));
  if (Json constraints = constraints_of(table); !constraints.empty()) {
    json["constraints"] = std::move(constraints);
  }
  return json;
}

}  // namespace

PlannerModel planner_model_from_json(const std::string& json) {
  const auto document = parse_json(json, "planner model");
  const JsonField root(document, "planner model");
  root.allow_only({"version", "batch_size", "dense_bytes", "tables"});
  root.at("version").int64(kModelVersion, kModelVersion);
  PlannerModel model;
  model.batch_size = root.at("batch_size").int64(1, kMostSamples);
  if (const auto bytes = root.find("dense_bytes"))
    model.dense_bytes = bytes->int64(0, kMostPlannedBytes);
  std::map<std::string, std::size_t> names;
  const JsonField tables = root.at("tables");
  for (const JsonField& table : tables.array()) {
    model.tables.push_back(planner_table_from(table));
    const auto [first, is_new] = names.try_emplace(model.tables.back().name, names.size());
    if (!is_new) table.at("name").fail(fmt::format("is that of tables[{}] too", first->second));
  }
  if (model.tables.empty()) tables.fail("must not be empty");
  return model;
}

std::string planner_model_to_json(const PlannerModel& model) {
  Json json{{"version", kModelVersion},
            {"batch_size", model.batch_size},
            {"dense_bytes", model.dense_bytes},
            {"tables", Json::array()}};
  for (const PlannerTable& table : model.tables) json["tables"].push_back(json_of(table));
  return json.dump(2) + "\n";
}

}  // namespace serrate
