#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <functional>
#include <map>
#include <optional>

#include "serrate/planner_report.h"
#include "src/cli/commands.h"
#include "src/core/json.h"
#include "src/data/dataset.h"
#include "src/data/split.h"
#include "src/io/output_file.h"
#include "src/io/text_file.h"
#include "src/run/options.h"
#include "src/run/planner_model.h"

namespace serrate::cli {
namespace {

struct PlanArguments {
  std::string model, topology;                    // files
  std::string from;                               // dataset file, instead of a model's
  TrainOptions training;                          // what `from` is trained with
  std::string validate;                           // plan file
  std::string output, json, report, write_model;  // files to write
  std::string explain, why_not;                   // questions about the plan
  std::vector<std::string> compare, what_if;
  PlannerOptions options;
};

struct PlanInput {
  PlannerModel model = {};
  PlannerTopology topology;
};

// A plan with its costs, or why there is none.
struct Found {
  std::optional<ShardingPlan> plan = {};
  PlanReport report = {};
  PlannerResult result = {};  // says why there is no plan
};

Found find_plan(const PlanInput& input, const PlannerOptions& options) {
  Found found{.result = plan_sharding(input.model, input.topology, options)};
  if (!found.result.feasible()) return found;
  found.plan = to_sharding_plan(input.model, input.topology, options, found.result);
  found.report = report_plan(input.model, input.topology, *found.plan, options);
  return found;
}

// Throws Error (failure) with the first problem when there are any, after all were printed.
Found validate(const PlanArguments& arguments, const PlanInput& input, ShardingPlan plan) {
  const auto& [model, topology] = input;
  const auto problems = plan_violations(model, topology, plan, arguments.options);
  for (const std::string& problem : problems) fmt::print("{}\n", problem);
  if (!problems.empty()) {
    throw Error(fmt::format("{} is not valid for {} on {} ({})", arguments.validate,
                            arguments.model + arguments.from, arguments.topology,
                            problems.front()));
  }
  fmt::print("{} is valid: every table is covered exactly once, within memory and constraints\n",
             arguments.validate);
  if (plan.provenance && plan.provenance->model != planner_hash(model)) {
    fmt::print("note: it was made for another model ({})\n", plan.provenance->model);
  }
  if (plan.provenance && plan.provenance->topology != planner_hash(topology)) {
    fmt::print("note: it was made for another topology ({})\n", plan.provenance->topology);
  }
  fmt::print("\n");
  Found found{.report = report_plan(model, topology, plan, arguments.options)};
  found.plan = std::move(plan);
  return found;
}

// The plan that --compare names: a file, a sharding type for all tables, or the planner's own.
Found named_plan(const std::string& name, const PlanInput& input, const PlannerOptions& options) {
  if (name == "auto") return find_plan(input, options);
  for (int type = 0; type < 7; ++type) {
    if (name != to_string(static_cast<ShardingType>(type))) continue;
    return find_plan(
        {with_sharding_type(input.model, static_cast<ShardingType>(type)), input.topology},
        options);
  }
  Found found{.plan = read_text_file(name, plan_from_json)};
  found.report = report_plan(input.model, input.topology, *found.plan, options);
  return found;
}

void compare(const PlanArguments& arguments, const PlanInput& input) {
  if (arguments.compare.size() != 2) {
    throw usage_error(
        "--compare takes two plans: files, auto (the planner's), or a sharding type for all "
        "tables");
  }
  std::vector<Found> found;
  for (const std::string& name : arguments.compare) {
    found.push_back(named_plan(name, input, arguments.options));
    if (found.back().plan) continue;
    fmt::print("{}: no plan ({})\n", name, found.back().result.infeasible);
  }
  if (!found[0].plan || !found[1].plan) return;
  fmt::print("{}", compare_text({arguments.compare[0], found[0].report},
                                {arguments.compare[1], found[1].report}));
}

void why_not(const PlanArguments& arguments, const PlanInput& input, const Found& found) {
  const auto colon = arguments.why_not.rfind(':');
  if (colon == std::string::npos) {
    throw usage_error(fmt::format("--why-not \"{}\" (takes TABLE:TYPE, such as item:row_wise)",
                                  arguments.why_not));
  }
  const std::string name = arguments.why_not.substr(0, colon);
  const ShardingType type = sharding_type_from_string(arguments.why_not.substr(colon + 1));
  PlanInput forced{with_sharding_type(input.model, name, type), input.topology};
  const TableReport& planned = *std::ranges::find(found.report.tables, name, &TableReport::name);
  fmt::print("why is {} not {}?\n", name, to_string(type));
  if (planned.type == type) {
    fmt::print("it is\n");
    return;
  }
  for (const PlannerTable& table : input.model.tables) {
    const std::string excluded = table.name == name ? why_excluded(table, type) : "";
    if (!excluded.empty()) fmt::print("not allowed: {}; if it were:\n", excluded);
  }
  Found other;
  try {
    other = find_plan(forced, arguments.options);
  } catch (const Error& error) {
    fmt::print("it cannot be: {}\n", error.what());
    return;
  }
  if (!other.plan) {
    fmt::print("no plan with it: {}\n", other.result.infeasible);
    return;
  }
  const double change = other.report.objective_ms() / found.report.objective_ms() - 1;
  fmt::print("the best plan found with it costs {:.4f} ms instead of {:.4f} ({:+.2f} %)\n\n{}",
             other.report.objective_ms(), found.report.objective_ms(), 100 * change,
             compare_text({"the plan", found.report}, {to_string(type), other.report}));
}

PlannerModel read_model(const PlanArguments& a, int world_size) {
  if (a.from.empty()) return read_text_file(a.model, planner_model_from_json);
  const Dataset dataset = Dataset::open(a.from);
  const Split split =
      make_split(dataset, split_kind_from_string(a.training.split), a.training.time_quantile);
  return planner_model(dataset, split, a.training, world_size);
}

// Whether there would be a plan.
bool what_if(const PlanArguments& arguments, const PlanInput& input, const Found& found) {
  PlanInput changed = input;
  const auto apply_all = [&] {
    for (const std::string& change : arguments.what_if) {
      apply_what_if(change, changed.model, changed.topology);
    }
  };
  apply_all();
  // Of the batch of a training, which is that of all ranks, each rank then has another part.
  if (!arguments.from.empty() && changed.topology.world_size != input.topology.world_size) {
    changed.model = read_model(arguments, changed.topology.world_size);
    apply_all();
  }
  const std::string changes = fmt::format("{}", fmt::join(arguments.what_if, " "));
  const Found other = find_plan(changed, arguments.options);
  if (!other.plan) {
    fmt::print("with {}: no plan ({})\n", changes, other.result.infeasible);
  } else if (!found.plan) {
    fmt::print("with {} there is a plan:\n\n{}", changes, to_text(other.report));
  } else {
    fmt::print("{}", compare_text({"as it is", found.report}, {changes, other.report}));
  }
  return other.plan.has_value();
}

// With the most expensive tables explained: each is as much work as a few plans are.
void write_report(const PlanArguments& arguments, const PlanInput& input, const Found& found) {
  constexpr std::size_t kMostExplained = 50;
  std::vector<const TableReport*> order;
  for (const TableReport& table : found.report.tables) order.push_back(&table);
  std::ranges::stable_sort(order, std::ranges::greater(), &TableReport::work_ms);
  order.resize(std::min(order.size(), kMostExplained));
  std::vector<TableExplanation> explanations;
  for (const TableReport* table : order) {
    explanations.push_back(
        explain_table(input.model, input.topology, *found.plan, found.report, table->name));
  }
  write_text_file(arguments.report, to_html(found.report, explanations));
}

// What of a training decides its tables and how a step looks them up.
constexpr const char* kDecidingOptions[] = {
    "split",     "time-quantile",       "batch-size",  "windows",  "negatives",
    "optimizer", "embedding-precision", "invalid-ids", "features", "dim",
    "blocks",    "feed-forward",        "max-length"};

void add_options(Options& line, PlanArguments& a) {
  line.add(option("model", a.model, "model file (docs/planner.md)").input());
  line.add(
      option("from", a.from, "dataset to train on, instead of --model; the options from --split on")
          .input());
  line.add(option("topology", a.topology, "topology file").required().input());
  line.add(option("output", a.output, "plan file to write").with_letter('o').output());
  line.add(option("json", a.json, "summary to write, for programs").output());
  line.add(option("report", a.report, "HTML page to write, for people").output());
  line.add(option("objective", a.options.objective, "what is made small", "max_rank|critical_path",
                  planner_objective_from_string));
  line.add(option("estimator", a.options.estimator, "whose cost model", "torchrec|serrate",
                  planner_estimator_from_string));
  line.add(option("time-limit", a.options.time_limit, "of the search"));
  line.add(option("seed", a.options.seed, "of the search; the same seed finds the same plan"));
  line.add(option("validate", a.validate, "checks this plan file instead of finding one").input());
  line.add(option("explain", a.explain, "every way to shard this table, and why it lost"));
  line.add(option("why-not", a.why_not, "TABLE:TYPE: what that would cost, or why it cannot be"));
  line.add(option("compare", a.compare, "two plans: files, auto, or a sharding type for all tables")
               .input());
  line.add(option("what-if", a.what_if, "hbm=40GiB, ranks=32, ...: the plan if that were so"));
  line.add(
      option("write-model", a.write_model, "model file to write, of what --from says").output());
  for (Option& option : option_table(a.training)) {
    if (std::ranges::count(kDecidingOptions, option.name) > 0) line.add(std::move(option));
  }
}

void check_what_if(const std::vector<std::string>& changes) {
  std::map<std::string, std::string> named;
  for (const std::string& change : changes) {
    const auto equals = change.find('=');
    if (equals == std::string::npos) {
      throw usage_error(fmt::format("--what-if {} (takes NAME=VALUE, as in hbm=40GiB)", change));
    }
    const auto [first, is_new] = named.emplace(change.substr(0, equals), change);
    if (is_new) continue;
    throw usage_error(fmt::format("--what-if {} and --what-if {} both change {}: keep one",
                                  first->second, change, first->first));
  }
}

// Nothing that was asked for is passed over.
void check_together(const PlanArguments& a, const Options& line) {
  if (a.model.empty() == a.from.empty()) {
    throw usage_error("--model or --from is needed, and not both (a model file or a dataset)");
  }
  const auto refuse = [&](const char* option, const char* why) {
    if (line.is_given(option)) throw usage_error(fmt::format("--{} {}", option, why));
  };
  if (a.from.empty()) {
    for (const char* option : kDecidingOptions) {
      refuse(option,
             "is of the training that --from plans for (a model file has its own): give "
             "--from, or leave it out");
    }
  }
  check_what_if(a.what_if);
  if (a.compare.empty()) return;
  for (const char* option :
       {"output", "json", "report", "validate", "explain", "why-not", "what-if"}) {
    refuse(option, "is about one plan (and --compare about two): leave out one of them");
  }
}

PlanInput read_input(const PlanArguments& a) {
  PlanInput input{.topology = read_text_file(a.topology, planner_topology_from_json)};
  input.model = read_model(a, input.topology.world_size);
  return input;
}

// The plan to talk about: the one to validate, or one found.
Found plan_in_hand(PlanArguments& arguments, const PlanInput& input, const Options& line) {
  if (arguments.validate.empty()) return find_plan(input, arguments.options);
  ShardingPlan plan = read_text_file(arguments.validate, plan_from_json);
  if (plan.provenance && !line.is_given("objective")) {
    arguments.options.objective = planner_objective_from_string(plan.provenance->objective);
  }
  if (plan.provenance && !line.is_given("estimator")) {
    arguments.options.estimator = planner_estimator_from_string(plan.provenance->estimator);
  }
  return validate(arguments, input, std::move(plan));
}

void write_infeasible(const PlanArguments& arguments, const PlannerResult& result) {
  if (arguments.json.empty()) return;
  write_text_file(arguments.json,
                  fmt::format("{{\"feasible\":false,\"proved\":{},\"why\":{}}}\n",
                              result.proved_infeasible, json_string(result.infeasible)));
}

}  // namespace

int plan_command(const Arguments& command_line) {
  PlanArguments arguments;
  Options line("plan",
               "Finds where every table should live, and proves how far from the best that can be. "
               "Needs neither a GPU nor MPI.");
  add_options(line, arguments);
  if (!line.parse(command_line)) return 0;

  check_together(arguments, line);
  for (const std::string& path :
       {arguments.output, arguments.json, arguments.report, arguments.write_model}) {
    if (!path.empty()) check_writable(path);  // before the work
  }
  const PlanInput input = read_input(arguments);
  if (!arguments.write_model.empty()) {
    write_text_file(arguments.write_model, planner_model_to_json(input.model));
  }
  if (!arguments.compare.empty()) {
    compare(arguments, input);
    return 0;
  }
  const Found found = plan_in_hand(arguments, input, line);
  const bool would_fit = arguments.what_if.empty() || what_if(arguments, input, found);
  if (!found.plan) {
    write_infeasible(arguments, found.result);
    throw Error(fmt::format("no plan for {} on {}: {}", arguments.model + arguments.from,
                            arguments.topology, found.result.infeasible));
  }
  if (!arguments.explain.empty()) {
    fmt::print("{}", to_text(explain_table(input.model, input.topology, *found.plan, found.report,
                                           arguments.explain)));
  }
  if (!arguments.why_not.empty()) why_not(arguments, input, found);
  const bool was_asked =
      !arguments.what_if.empty() || !arguments.explain.empty() || !arguments.why_not.empty();
  if (!was_asked) fmt::print("{}", to_text(found.report));
  if (!arguments.output.empty()) write_text_file(arguments.output, plan_to_json(*found.plan));
  if (!arguments.json.empty()) write_text_file(arguments.json, to_json(found.report));
  if (!arguments.report.empty()) write_report(arguments, input, found);
  return would_fit ? 0 : 1;
}

}  // namespace serrate::cli
