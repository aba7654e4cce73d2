#include "sharding/report/constraints.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "serrate/error.h"

namespace serrate {
namespace {

template <typename T>
std::string list_of(const std::vector<T>& values) {
  std::vector<std::string> names;
  for (const T value : values) names.push_back(to_string(value));
  return fmt::format("{}", fmt::join(names, ", "));
}

}  // namespace

std::string why_excluded(const PlannerTable& table, ShardingType type) {
  const auto& types = table.sharding_types;
  if (!types.empty() && std::ranges::find(types, type) == types.end()) {
    return fmt::format("constraints.sharding_types allows {} alone", list_of(types));
  }
  if (type == ShardingType::kGrid && types.empty())
    return "constraints.sharding_types does not name grid";
  return "";
}

std::string why_excluded(const PlannerTable& table, ComputeKernel kernel) {
  const bool is_default = kernel == ComputeKernel::kDense || kernel == ComputeKernel::kFused;
  if (table.kernels.empty()) {
    return is_default ? "" : fmt::format("constraints.kernels does not name {}", to_string(kernel));
  }
  if (std::ranges::find(table.kernels, kernel) != table.kernels.end()) return "";
  return fmt::format("constraints.kernels allows {} alone", list_of(table.kernels));
}

const PlannerTable& find_table(const PlannerModel& model, const std::string& name) {
  const auto found = std::ranges::find(model.tables, name, &PlannerTable::name);
  if (found == model.tables.end()) {
    throw usage_error(fmt::format("the model has no table \"{}\"", name));
  }
  return *found;
}

bool are_together(const PlannerTable& a, const PlannerTable& b) {
  return a.name == b.name || (!a.group.empty() && a.group == b.group);
}

PlannerModel with_sharding_type(PlannerModel model, const std::string& table, ShardingType type) {
  const PlannerTable wanted = find_table(model, table);
  for (PlannerTable& t : model.tables) {
    if (are_together(t, wanted)) t.sharding_types = {type};
  }
  return model;
}

PlannerModel with_sharding_type(PlannerModel model, ShardingType type) {
  for (PlannerTable& t : model.tables) t.sharding_types = {type};
  return model;
}

}  // namespace serrate
