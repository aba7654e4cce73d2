#include "src/run/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "comm/together.h"
#include "serrate/planner.h"
#include "sharding/files/quantity.h"
#include "src/core/checked_math.h"
#include "src/core/say.h"
#include "src/io/text_file.h"
#include "src/run/machines.h"
#include "src/run/memory_check.h"
#include "src/run/options.h"
#include "src/run/planner_model.h"
#include "src/train/model_state.h"

namespace serrate {
namespace {

PlannerTopology default_topology(const TrainOptions& options, const Machines& machines,
                                 std::int64_t bytes_beside_tables) {
  PlannerTopology t = topology_of(machines, options.ranks_per_node);
  auto& nearest = t.device == PlannerDevice::kCuda ? t.device_bytes : t.host_bytes;
  if (!options.memory_limit.empty()) {
    nearest.assign(t.world_size, bytes_from_string(options.memory_limit));
    t.reserve = 0;
  }
  for (std::int64_t& bytes : nearest) {
    bytes = std::max<std::int64_t>(bytes - bytes_beside_tables, 0);
  }
  return t;
}

PlannerTopology read_topology(const TrainOptions& options, const Machines& machines) {
  PlannerTopology t = read_text_file(options.topology, planner_topology_from_json);
  const auto require = [&](const char* field, int value, int ours) {
    if (value == ours) return;
    throw usage_error(
        fmt::format("{}: {}: is {}, but the job's is {}", options.topology, field, value, ours));
  };
  require("world_size", t.world_size, machines.world_size());
  if (options.ranks_per_node > 0) {
    require("ranks_per_node", t.ranks_per_node, options.ranks_per_node);
  }
  const bool is_of_gpus = t.device == PlannerDevice::kCuda;
  if (is_of_gpus != (machines.device_type() == DeviceType::kCuda)) {
    throw usage_error(
        fmt::format("{}: device: is {}, but the job's ranks work on {} give a "
                    "topology of those, or another --device",
                    options.topology, is_of_gpus ? "cuda" : "cpu", is_of_gpus ? "CPUs" : "GPUs"));
  }
  return t;
}

// As the planner has it for our runtime and the time of a step, of the types allowed.
PlannerOptions planner_options(const TrainOptions& options) {
  return {.estimator = PlannerEstimator::kSerrate,
          .objective = PlannerObjective::kCriticalPath,
          .seed = options.seed};
}

void allow_types(const TrainOptions& options, PlannerModel& model) {
  for (PlannerTable& table : model.tables) {
    if (options.sharding_types.empty()) continue;
    table.sharding_types.clear();
    for (const std::string& type : options.sharding_types) {
      table.sharding_types.push_back(sharding_type_from_string(type));
    }
  }
}

// Throws Error (usage) for what the trainer cannot do with a plan.
void check_plan(const ShardingPlan& plan, const TrainOptions& options,
                const std::vector<EmbeddingTable>& tables, int world_size) {
  if (options.ranks_per_node > 0 && plan.ranks_per_node > 0 &&
      options.ranks_per_node != plan.ranks_per_node) {
    throw usage_error(
        fmt::format("ranks_per_node: is {}, but --ranks-per-node is {} (tables would not be on "
                    "the nodes they were planned for) make a plan for these nodes",
                    plan.ranks_per_node, options.ranks_per_node));
  }
  for (std::size_t i = 0; i < plan.tables.size(); ++i) {
    const auto kernel = plan.tables[i].kernel;
    if (kernel == ComputeKernel::kFusedUvm || kernel == ComputeKernel::kFusedUvmCaching) {
      throw usage_error(
          fmt::format("sharding plan: tables[{}].kernel: {} (the trainer keeps all rows in the "
                      "memory of their rank) plan with the kernels dense and fused",
                      i, to_string(*kernel)));
    }
  }
  validate_plan(plan, tables, world_size);
}

ShardingPlan load_plan(const TrainOptions& options, const std::vector<EmbeddingTable>& tables,
                       int world_size) {
  return read_text_file(options.plan, [&](const std::string& text) {
    ShardingPlan plan = plan_from_json(text);
    check_plan(plan, options, tables, world_size);
    return plan;
  });
}

// What is made at once has to fit beside the tables; `least` is tried where `most` leaves no plan.
ShardingPlan make_plan(PlannerModel model, const TrainOptions& options, const Machines& machines,
                       const std::function<DenseMemory(std::int64_t)>& dense, std::int64_t least,
                       std::int64_t most) {
  allow_types(options, model);
  const auto topology = [&](std::int64_t tokens) {
    if (!options.topology.empty()) return read_topology(options, machines);
    const DenseMemory d = dense(tokens);
    return default_topology(options, machines, sum_of_bytes({d.activations, d.sums}));
  };
  const PlannerOptions planner = planner_options(options);
  PlannerTopology t = topology(most);
  PlannerResult result = plan_sharding(model, t, planner);
  if (!result.feasible() && least < most && options.topology.empty()) {
    t = topology(least);
    result = plan_sharding(model, t, planner);
  }
  if (!result.feasible()) throw usage_error("--plan auto: " + result.infeasible);
  return to_sharding_plan(model, t, planner, result);
}

RunPlan plan_and_check(const Dataset& dataset, const Split& split, const TrainOptions& options,
                       const Machines& machines) {
  const int world_size = machines.world_size();
  const PlannerModel model = planner_model(dataset, split, options, world_size);
  const auto dense = [&](std::int64_t tokens) {
    return dense_memory(model, options, world_size, tokens);
  };
  const std::int64_t most = tokens_at_once(options, machines.device_type());
  const bool may_be_cut = machines.device_type() == DeviceType::kCuda && !options.reproducible;
  const std::int64_t least = may_be_cut ? options.model.max_length : most;
  ShardingPlan plan;
  if (options.plan == "auto") {
    plan = make_plan(model, options, machines, dense, least, most);
  } else {
    const auto tables = tables_of(dataset, options);
    plan = options.plan.empty() ? default_plan(tables, world_size)
                                : load_plan(options, tables, world_size);
  }
  const auto exchanged = exchanged_model(model, plan, options);
  const auto use =
      options.checkpoint_every.empty() ? MemoryUse::kTraining : MemoryUse::kTrainingWithCopy;
  const std::int64_t tokens =
      tokens_that_fit(exchanged, plan, dense, least, most, options.memory_limit, machines, use);
  check_memory(exchanged, plan, dense(tokens), options.memory_limit, machines, use);
  return {std::move(plan), tokens};
}

RunPlan plan_evaluation(const Dataset& dataset, const Split& split, TrainOptions run,
                        const EvaluateOptions& options, const Machines& machines) {
  const int world_size = machines.world_size();
  ShardingPlan plan = default_plan(tables_of(dataset, run), world_size);
  // A batch of the latest events, without negatives.
  run.batch_size = std::min(options.batch_size, std::ssize(split.cases));
  run.windows = TrainingWindows::kLatest;
  run.negatives = 1;
  const PlannerModel model = planner_model(dataset, split, run, world_size);
  const auto dense = [&](std::int64_t tokens) {
    return evaluation_memory(model, run, options, dataset.num_items(), world_size, tokens);
  };
  const std::int64_t most = tokens_at_once(run, machines.device_type());
  const std::int64_t least =
      machines.device_type() == DeviceType::kCuda ? run.model.max_length : most;
  const std::int64_t tokens =
      tokens_that_fit(model, plan, dense, least, most, "", machines, MemoryUse::kEvaluation);
  check_memory(model, plan, dense(tokens), "", machines, MemoryUse::kEvaluation);
  return {std::move(plan), tokens};
}

void say_gpus(const Machines& machines) {
  const auto num_gpus = std::ssize(machines.gpus.memory);
  if (num_gpus == 0) return;
  const int num_ranks = machines.world_size();
  say(fmt::format("{} rank{} on {} GPU{}{}", num_ranks, num_ranks == 1 ? "" : "s", num_gpus,
                  num_gpus == 1 ? "" : "s",
                  num_ranks > num_gpus ? ", which they share: slower than one GPU per rank" : ""));
}

// What rank 0 makes, on all.
RunPlan plan_of_rank_0(Communicator& communicator, Device device, const TrainOptions& options,
                       const std::function<RunPlan(const Machines&)>& make) {
  const Machines machines = find_machines(communicator, device);
  std::string text;
  std::int64_t tokens = 0;
  together(communicator, "plan", [&] {
    if (communicator.rank() > 0) return;
    say_gpus(machines);
    const RunPlan plan = make(machines);
    text = plan_to_json(plan.sharding);
    tokens = plan.tokens_at_once;
    if (tokens == tokens_at_once(options, device.type)) return;
    say(fmt::format(
        "a whole batch does not fit into a GPU's memory at once: in parts of up to {} tokens",
        tokens));
  });
  text = communicator.gather_strings("plan of rank 0", text).front();
  return {plan_from_json(text), communicator.gather_int64("plan of rank 0", tokens).front()};
}

}  // namespace

RunPlan run_plan(const Dataset& dataset, const Split& split, const TrainOptions& options,
                 Communicator& communicator, Device device) {
  return plan_of_rank_0(communicator, device, options, [&](const Machines& machines) {
    return plan_and_check(dataset, split, options, machines);
  });
}

RunPlan evaluation_plan(const Dataset& dataset, const Split& split, const TrainOptions& run,
                        const EvaluateOptions& options, Communicator& communicator, Device device) {
  return plan_of_rank_0(communicator, device, run, [&](const Machines& machines) {
    return plan_evaluation(dataset, split, run, options, machines);
  });
}

}  // namespace serrate
