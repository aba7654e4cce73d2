#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>

#include "serrate/error.h"
#include "serrate/planner_report.h"
#include "sharding/files/quantity.h"

namespace serrate {
namespace {

template <typename T>
bool allows(const std::vector<T>& values, T value) {
  return std::find(values.begin(), values.end(), value) != values.end();
}

template <typename T>
std::string names_of(const std::vector<T>& values) {
  std::vector<std::string> names;
  for (const T value : values) names.push_back(to_string(value));
  return fmt::format("{}", fmt::join(names, ", "));
}

class ViolationFinder {
 public:
  ViolationFinder(const PlannerModel& model, const ShardingPlan& plan, const PlanReport& report)
      : model_(model), report_(report) {
    for (const TableSharding& sharding : plan.tables) shardings_[sharding.table] = &sharding;
  }

  std::vector<std::string> find() {
    check_memory("device", report_.cost.device_bytes, report_.usable.device_bytes);
    check_memory("host", report_.cost.host_bytes, report_.usable.host_bytes);
    for (std::size_t t = 0; t < model_.tables.size(); ++t) {
      check_table(model_.tables[t], report_.tables[t]);
      check_group(model_.tables[t], report_.tables[t]);
    }
    return std::move(violations_);
  }

 private:
  void check_memory(const char* kind, const std::vector<std::int64_t>& needed,
                    const std::vector<std::int64_t>& usable) {
    for (std::size_t rank = 0; rank < needed.size(); ++rank) {
      if (needed[rank] <= usable[rank]) continue;
      violations_.push_back(
          fmt::format("rank {}: needs {} of {} memory, but tables may use {} ({} too much)", rank,
                      format_bytes(needed[rank]), kind, format_bytes(usable[rank]),
                      format_bytes(needed[rank] - usable[rank])));
    }
  }

  void check_table(const PlannerTable& table, const TableReport& is) {
    const auto add = [&](const std::string& problem) {
      violations_.push_back(
          fmt::format("table \"{}\" ({}): {}", table.name, to_string(is.type), problem));
    };
    if (!table.sharding_types.empty() && !allows(table.sharding_types, is.type)) {
      add(fmt::format("its constraints allow {}", names_of(table.sharding_types)));
    }
    if (!table.kernels.empty() && !allows(table.kernels, is.kernel)) {
      add(fmt::format("its kernel is {}, its constraints allow {}", to_string(is.kernel),
                      names_of(table.kernels)));
    }
    const bool replicated = is.type == ShardingType::kDataParallel;
    if (replicated != (is.kernel == ComputeKernel::kDense)) {
      add(fmt::format("cannot have the kernel {} (dense is data_parallel's)",
                      to_string(is.kernel)));
    }
    for (const int rank : is.ranks) {
      if (table.ranks.empty() || allows(table.ranks, rank)) continue;
      add(fmt::format("has a shard on rank {}, its constraints allow {}", rank,
                      fmt::join(table.ranks, ", ")));
    }
    for (const Shard& s : shardings_.at(table.name)->shards) {
      if (s.num_columns() == table.dim || s.num_columns() >= table.min_columns) continue;
      add(fmt::format("has a shard of {} columns, min_columns is {}", s.num_columns(),
                      table.min_columns));
      break;
    }
  }

  void check_group(const PlannerTable& table, const TableReport& is) {
    if (table.group.empty()) return;
    const auto [first, is_new] = groups_.try_emplace(table.group, &is);
    const TableReport& other = *first->second;
    if (is_new || (other.type == is.type && other.kernel == is.kernel && other.ranks == is.ranks)) {
      return;
    }
    violations_.push_back(
        fmt::format("table \"{}\": is not where \"{}\" is, of the same group \"{}\"", table.name,
                    other.name, table.group));
  }

  const PlannerModel& model_;
  const PlanReport& report_;
  std::map<std::string, const TableSharding*> shardings_;
  std::map<std::string, const TableReport*> groups_;
  std::vector<std::string> violations_;
};

}  // namespace

std::vector<std::string> plan_violations(const PlannerModel& model, const PlannerTopology& topology,
                                         const ShardingPlan& plan, const PlannerOptions& options) {
  try {
    return ViolationFinder(model, plan, report_plan(model, topology, plan, options)).find();
  } catch (const Error& error) {
    return {error.what()};
  }
}

}  // namespace serrate
