#include "src/run/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "comm/together.h"
#include "serrate/planner.h"
#include "sharding/files/quantity.h"
#include "src/core/checked_math.h"
#include "src/core/say.h"
#include "src/evaluate/baselines.h"
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
                    "the nodes they were planned for): make a plan for these nodes",
                    plan.ranks_per_node, options.ranks_per_node));
  }
  for (std::size_t i = 0; i < plan.tables.size(); ++i) {
    const auto kernel = plan.tables[i].kernel;
    if (kernel == ComputeKernel::kFusedUvm || kernel == ComputeKernel::kFusedUvmCaching) {
      throw usage_error(
          fmt::format("sharding plan: tables[{}].kernel: {} (the trainer keeps all rows in the "
                      "memory of their rank): plan with the kernels dense and fused",
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

// How many tokens pass at once, and are counted: on the CPU and where the run is reproducible, what
// the options say; on a GPU else as many as fit, from one sequence to the longest possible batch.
struct TokenRange {
  std::int64_t least, most, mean;
  bool is_cut;  // by what fits
};

TokenRange tokens_of(const PlannerModel& model, const TrainOptions& options,
                     const Machines& machines) {
  const std::int64_t longest = options.model.max_length, mean = mean_tokens(model);
  if (machines.device_type() == DeviceType::kCpu || options.reproducible) {
    const std::int64_t most = std::max(tokens_at_once(options, machines.device_type()), longest);
    return {std::min(mean, most), std::min(mean, most), mean, false};
  }
  const double all = static_cast<double>(options.batch_size) * static_cast<double>(longest);
  constexpr double kMost = 1e12;  // memory for them is nowhere, and counts of bytes do not overflow
  return {longest, std::max({longest, mean, static_cast<std::int64_t>(std::min(all, kMost))}), mean,
          true};
}

// What is made at once has to fit beside the tables: a whole batch, or else half of one, and so on.
ShardingPlan make_plan(PlannerModel model, const TrainOptions& options, const Machines& machines,
                       const std::function<DenseMemory(std::int64_t)>& dense,
                       const TokenRange& range) {
  allow_types(options, model);
  const PlannerOptions planner = planner_options(options);
  for (std::int64_t tokens = range.mean;; tokens = std::max(tokens / 2, range.least)) {
    PlannerTopology topology;
    if (options.topology.empty()) {
      const DenseMemory d = dense(range.is_cut ? tokens : range.least);
      topology = default_topology(options, machines, sum_of_bytes({d.activations, d.sums}));
    } else {
      topology = read_topology(options, machines);
    }
    const PlannerResult result = plan_sharding(model, topology, planner);
    if (result.feasible()) return to_sharding_plan(model, topology, planner, result);
    if (!range.is_cut || tokens <= range.least || !options.topology.empty()) {
      throw usage_error("--plan auto: " + result.infeasible);
    }
  }
}

// As many tokens as fit beside the plan's tables. Throws Error (usage) when too few do.
RunPlan with_tokens_that_fit(ShardingPlan plan, const PlannerModel& model,
                             const TrainOptions& options, const Machines& machines,
                             const std::function<DenseMemory(std::int64_t)>& dense,
                             const TokenRange& range, const std::string& limit, MemoryUse use) {
  const std::int64_t tokens =
      tokens_that_fit(model, plan, dense, range.least, range.most, limit, machines, use);
  try {
    check_memory(model, plan, dense(tokens), limit, machines, use);
  } catch (const Error& error) {
    if (!options.reproducible || machines.device_type() == DeviceType::kCpu) throw;
    throw usage_error(std::string(error.what()) +
                      "; without --reproducible a batch can be taken in parts");
  }
  if (!range.is_cut) return {std::move(plan), tokens_at_once(options, machines.device_type())};
  if (tokens < range.mean) {
    say(
        fmt::format("a batch of {} tokens does not fit into a GPU's memory at once: in parts of up "
                    "to {}",
                    range.mean, tokens));
  }
  return {std::move(plan), tokens};
}

RunPlan plan_and_check(const Dataset& dataset, const Split& split, const TrainOptions& options,
                       const Machines& machines) {
  const int world_size = machines.world_size();
  const PlannerModel model = planner_model(dataset, split, options, world_size);
  const TokenRange range = tokens_of(model, options, machines);
  const auto dense = [&](std::int64_t tokens) {
    return dense_memory(model, options, machines, tokens);
  };
  ShardingPlan plan;
  if (options.plan == "auto") {
    plan = make_plan(model, options, machines, dense, range);
  } else {
    const auto tables = tables_of(dataset, options);
    plan = options.plan.empty() ? default_plan(tables, world_size)
                                : load_plan(options, tables, world_size);
  }
  const PlannerModel exchanged = exchanged_model(model, plan, options);
  return with_tokens_that_fit(
      std::move(plan), exchanged, options, machines, dense, range, options.memory_limit,
      options.checkpoint_every.empty() ? MemoryUse::kTraining : MemoryUse::kTrainingWithCopy);
}

RunPlan plan_evaluation(const Dataset& dataset, const Split& split, TrainOptions run,
                        const EvaluateOptions& options, const Machines& machines) {
  const int world_size = machines.world_size();
  ShardingPlan plan = default_plan(tables_of(dataset, run), world_size);
  // A batch of the latest events, without negatives. Parts of a batch have the same results.
  run.batch_size = std::min(options.batch_size, std::ssize(split.cases));
  run.windows = TrainingWindows::kLatest;
  run.negatives = 1;
  run.reproducible = false;
  const PlannerModel model = planner_model(dataset, split, run, world_size);
  const auto dense = [&](std::int64_t tokens) {
    DenseMemory memory =
        evaluation_memory(model, run, options, dataset.num_items(), machines, tokens);
    memory.baselines = baseline_bytes(dataset, split);
    return memory;
  };
  return with_tokens_that_fit(std::move(plan), model, run, machines, dense,
                              tokens_of(model, run, machines), "", MemoryUse::kEvaluation);
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
RunPlan plan_of_rank_0(Communicator& communicator, Device device,
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
  });
  text = communicator.gather_strings("plan of rank 0", text).front();
  return {plan_from_json(text), communicator.gather_int64("plan of rank 0", tokens).front()};
}

}  // namespace

RunPlan run_plan(const Dataset& dataset, const Split& split, const TrainOptions& options,
                 Communicator& communicator, Device device) {
  return plan_of_rank_0(communicator, device, [&](const Machines& machines) {
    return plan_and_check(dataset, split, options, machines);
  });
}

RunPlan evaluation_plan(const Dataset& dataset, const Split& split, const TrainOptions& run,
                        const EvaluateOptions& options, Communicator& communicator, Device device) {
  return plan_of_rank_0(communicator, device, [&](const Machines& machines) {
    return plan_evaluation(dataset, split, run, options, machines);
  });
}

}  // namespace serrate
