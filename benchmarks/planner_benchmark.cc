// Plans instances of planner_instance.py (one feature a table) for both objectives, judged by
// TorchRec's model; one JSON line each.
// usage: planner_benchmark INSTANCE.json...
#include <fmt/format.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "benchmarks/processor_time.h"
#include "serrate/error.h"
#include "serrate/planner.h"
#include "src/core/json.h"

namespace serrate {
namespace {

struct Instance {
  PlannerModel model;
  PlannerTopology topology;
};

Instance read_instance(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw usage_error(fmt::format("{} (it cannot be read)", path));
  const auto document = parse_json(std::string(std::istreambuf_iterator<char>(file), {}), path);
  const JsonField root(document, path);
  Instance instance;
  PlannerTopology& t = instance.topology;
  t.world_size = static_cast<int>(root.at("world_size").int64());
  t.ranks_per_node = static_cast<int>(root.at("local_world_size").int64());
  t.device_bytes.assign(t.world_size, root.at("hbm_usable_bytes_per_rank").int64());
  t.host_bytes.assign(t.world_size, root.at("ddr_bytes_per_rank").int64());
  instance.model.batch_size = root.at("batch_size_per_rank").int64();
  std::vector<ComputeKernel> kernels;
  for (const JsonField& kernel : root.at("compute_kernels").array()) {
    kernels.push_back(compute_kernel_from_string(kernel.string()));
  }
  for (const JsonField& table : root.at("tables").array()) {
    instance.model.tables.push_back(
        {.name = table.at("name").string(),
         .num_rows = table.at("num_embeddings").int64(),
         .dim = table.at("embedding_dim").int64(),
         .features = {{.pooling_factor = table.at("pooling_factor").number()}},
         .kernels = kernels});
  }
  return instance;
}

void benchmark(const std::string& path) {
  const Instance instance = read_instance(path);
  for (const auto objective : {PlannerObjective::kMaxRank, PlannerObjective::kCriticalPath}) {
    const double begin = processor_seconds();
    const PlannerResult result =
        plan_sharding(instance.model, instance.topology, {.objective = objective});
    const double ms = 1e3 * (processor_seconds() - begin);
    const std::string name = std::filesystem::path(path).stem().string();
    if (result.feasible()) {
      fmt::print(
          "{{\"instance\": {}, \"objective\": \"{}\", \"feasible\": true, \"search_ms\": {:.3f}, "
          "\"rate\": {:.6f}, \"crit\": {:.6f}, \"bound\": {:.6f}, \"gap\": {:.6f}}}\n",
          json_string(name), to_string(objective), ms, result.cost.max_rank,
          result.cost.critical_path, result.bound, result.gap(objective));
    } else {
      fmt::print(
          "{{\"instance\": {}, \"objective\": \"{}\", \"feasible\": false, \"proved\": {}, "
          "\"search_ms\": {:.3f}, \"rate\": null, \"crit\": null, \"bound\": null, \"gap\": null, "
          "\"why\": {}}}\n",
          json_string(name), to_string(objective), result.proved_infeasible, ms,
          json_string(result.infeasible));
    }
    std::fflush(stdout);
  }
}

}  // namespace
}  // namespace serrate

int main(int argc, char** argv) {
  try {
    for (int i = 1; i < argc; ++i) serrate::benchmark(argv[i]);
    return 0;
  } catch (const serrate::Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return error.exit_code();
  }
}
