#include <fmt/format.h>

#include "serrate/planner_report.h"
#include "src/cli/commands.h"
#include "src/core/json.h"
#include "src/io/text_file.h"

namespace serrate::cli {
namespace {

struct PlanFiles {
  std::string model, topology, output, json, validate;
};

void write_infeasible(const PlanFiles& files, const PlannerResult& result) {
  if (files.json.empty()) return;
  write_text_file(files.json,
                  fmt::format("{{\"feasible\":false,\"proved\":{},\"why\":{}}}\n",
                              result.proved_infeasible, json_string(result.infeasible)));
}

ShardingPlan find_plan(const PlanFiles& files, const PlannerModel& model,
                       const PlannerTopology& topology, const PlannerOptions& options) {
  const PlannerResult result = plan_sharding(model, topology, options);
  if (!result.feasible()) {
    write_infeasible(files, result);
    throw Error(
        fmt::format("no plan for {} on {}: {}", files.model, files.topology, result.infeasible));
  }
  return to_sharding_plan(model, topology, options, result);
}

// Throws Error (failure) with the first problem when there are any, after all were printed.
void validate(const PlanFiles& files, const PlannerModel& model, const PlannerTopology& topology,
              const ShardingPlan& plan, const PlannerOptions& options) {
  const auto problems = plan_problems(model, topology, plan, options);
  for (const std::string& problem : problems) fmt::print("{}\n", problem);
  if (!problems.empty()) {
    throw Error(fmt::format("{} is not valid for {} on {} ({})", files.validate, files.model,
                            files.topology, problems.front()));
  }
  fmt::print("{} is valid: every table is covered exactly once, within memory and constraints\n",
             files.validate);
  if (plan.provenance && plan.provenance->model != planner_hash(model)) {
    fmt::print("note: it was made for another model file ({})\n", plan.provenance->model);
  }
  if (plan.provenance && plan.provenance->topology != planner_hash(topology)) {
    fmt::print("note: it was made for another topology file ({})\n", plan.provenance->topology);
  }
  fmt::print("\n");
}

}  // namespace

int plan_command(const Arguments& arguments) {
  PlanFiles files;
  PlannerOptions options;
  Options line("plan",
               "Finds where every table should live, and proves how far from the best that can be. "
               "Needs neither a GPU nor MPI.");
  line.add("model", files.model, "model file (docs/planner.md)", Options::Need::kRequired);
  line.add("topology", files.topology, "topology file", Options::Need::kRequired);
  line.add("output,o", files.output, "plan file to write");
  line.add("json", files.json, "summary to write, for programs");
  line.add("validate", files.validate, "checks this plan file instead of finding one");
  line.add("objective", options.objective, "what is made small", "max_rank|critical_path",
           planner_objective_from_string);
  line.add("estimator", options.estimator, "whose cost model", "torchrec|serrate",
           planner_estimator_from_string);
  line.add("time-limit", options.time_limit, "of the search");
  line.add("seed", options.seed, "of the search; the same seed finds the same plan");
  if (!line.parse(arguments)) return 0;

  const PlannerModel model = planner_model_from_json(read_text_file(files.model));
  const PlannerTopology topology = planner_topology_from_json(read_text_file(files.topology));
  const ShardingPlan plan = files.validate.empty() ? find_plan(files, model, topology, options)
                                                   : plan_from_json(read_text_file(files.validate));
  if (!files.validate.empty()) {
    if (plan.provenance && !line.is_given("objective")) {
      options.objective = planner_objective_from_string(plan.provenance->objective);
    }
    if (plan.provenance && !line.is_given("estimator")) {
      options.estimator = planner_estimator_from_string(plan.provenance->estimator);
    }
    validate(files, model, topology, plan, options);
  }
  const PlanReport report = report_plan(model, topology, plan, options);
  fmt::print("{}", to_text(report));
  if (!files.output.empty()) write_text_file(files.output, plan_to_json(plan));
  if (!files.json.empty()) write_text_file(files.json, to_json(report));
  return 0;
}

}  // namespace serrate::cli
