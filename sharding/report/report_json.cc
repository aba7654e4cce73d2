#include <nlohmann/json.hpp>

#include <numeric>

#include "serrate/planner_report.h"

namespace serrate {
namespace {

using Json = nlohmann::ordered_json;

Json json_of(const PhaseReport& phase) {
  const double sum = std::accumulate(phase.ms.begin(), phase.ms.end(), 0.0);
  return {{"name", phase.name},
          {"slowest_ms", phase.slowest_ms()},
          {"slowest_rank", phase.slowest_rank},
          {"mean_ms", sum / static_cast<double>(phase.ms.size())}};
}

Json json_of(const TableReport& table) {
  return {{"name", table.name},
          {"type", to_string(table.type)},
          {"kernel", to_string(table.kernel)},
          {"num_shards", table.num_shards},
          {"ranks", table.ranks},
          {"work_ms", table.work_ms},
          {"shard_ms", table.shard_ms},
          {"device_bytes", table.device_bytes},
          {"host_bytes", table.host_bytes}};
}

Json rank_json(const PlanReport& r, int rank) {
  Json json{{"rank", rank},
            {"ms", r.rank_ms[rank]},
            {"device_bytes", r.cost.device_bytes[rank]},
            {"device_usable", r.usable.device_bytes[rank]},
            {"host_bytes", r.cost.host_bytes[rank]},
            {"host_usable", r.usable.host_bytes[rank]},
            {"phase_ms", Json::array()},
            {"shards", Json::object()}};
  for (const PhaseReport& phase : r.phases) json["phase_ms"].push_back(phase.ms[rank]);
  for (std::size_t type = 0; type < r.shards[rank].size(); ++type) {
    if (r.shards[rank][type] > 0) {
      json["shards"][to_string(static_cast<ShardingType>(type))] = r.shards[rank][type];
    }
  }
  return json;
}

}  // namespace

std::string to_json(const PlanReport& r) {
  Json json{{"feasible", true},
            {"objective", to_string(r.objective)},
            {"estimator", to_string(r.estimator)},
            {"device", r.device == PlannerDevice::kCuda ? "cuda" : "cpu"},
            {"world_size", r.world_size},
            {"ranks_per_node", r.ranks_per_node},
            {"batch_size", r.batch_size},
            {"max_rank_ms", r.cost.max_rank},
            {"critical_path_ms", r.cost.critical_path},
            {"cost_ms", r.objective_ms()},
            {"bound_ms", r.bound_ms > 0 ? Json(r.bound_ms) : Json()},
            {"gap", r.bound_ms > 0 ? Json(r.gap()) : Json()},
            {"imbalance", r.imbalance()},
            {"phases", Json::array()},
            {"ranks", Json::array()},
            {"tables", Json::array()}};
  for (const PhaseReport& phase : r.phases) json["phases"].push_back(json_of(phase));
  for (int rank = 0; rank < r.world_size; ++rank) json["ranks"].push_back(rank_json(r, rank));
  for (const TableReport& table : r.tables) json["tables"].push_back(json_of(table));
  return json.dump() + "\n";
}

}  // namespace serrate
