#include <fmt/format.h>

#include "serrate/planner.h"
#include "src/cli/commands.h"
#include "src/io/text_file.h"

namespace serrate::cli {

int plan_command(const Arguments& arguments) {
  std::string model_path, topology_path, output;
  PlannerOptions options;
  Options line("plan",
               "Finds where every table should live, and proves how far from the best that can be. "
               "Needs neither a GPU nor MPI.");
  line.add("model", model_path, "model file (docs/planner.md)", Options::Need::kRequired);
  line.add("topology", topology_path, "topology file", Options::Need::kRequired);
  line.add("output,o", output, "plan file to write");
  line.add("objective", options.objective, "what is made small", "max_rank|critical_path",
           planner_objective_from_string);
  line.add("estimator", options.estimator, "whose cost model", "torchrec|serrate",
           planner_estimator_from_string);
  line.add("time-limit", options.time_limit, "of the search");
  line.add("seed", options.seed, "of the search; the same seed finds the same plan");
  if (!line.parse(arguments)) return 0;

  const PlannerModel model = planner_model_from_json(read_text_file(model_path));
  const PlannerTopology topology = planner_topology_from_json(read_text_file(topology_path));
  const PlannerResult result = plan_sharding(model, topology, options);
  if (!result.feasible()) {
    throw Error(
        fmt::format("no plan for {} on {}: {}", model_path, topology_path, result.infeasible));
  }
  fmt::print("{} {:.4f} ms, bound {:.4f} ms, gap {:.2f} %\n", to_string(options.objective),
             result.objective(options.objective), result.bound,
             100 * result.gap(options.objective));
  if (!output.empty()) {
    write_text_file(output, plan_to_json(to_sharding_plan(model, topology, options, result)));
  }
  return 0;
}

}  // namespace serrate::cli
