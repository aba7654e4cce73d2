#include <fmt/format.h>

#include "serrate/planner.h"

namespace serrate {
namespace {

// FNV-1a, 64 bits (Fowler, Noll, Vo): tells files apart, does not guard against forgery.
std::string hash_of(const std::string& text) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const char c : text) {
    hash ^= static_cast<unsigned char>(c);
    hash *= 0x100000001b3;
  }
  return fmt::format("fnv1a64:{:016x}", hash);
}

}  // namespace

std::string planner_hash(const PlannerModel& model) {
  return hash_of(planner_model_to_json(model));
}

std::string planner_hash(const PlannerTopology& topology) {
  return hash_of(planner_topology_to_json(topology));
}

ShardingPlan to_sharding_plan(const PlannerModel& model, const PlannerTopology& topology,
                              const PlannerOptions& options, const PlannerResult& result) {
  ShardingPlan plan = to_sharding_plan(model, topology, result.tables);
  plan.provenance = {.serrate = SERRATE_VERSION,
                     .model = planner_hash(model),
                     .topology = planner_hash(topology),
                     .objective = to_string(options.objective),
                     .estimator = to_string(options.estimator),
                     .cost_ms = result.objective(options.objective),
                     .bound_ms = result.bound,
                     .seed = options.seed};
  return plan;
}

}  // namespace serrate
