#include "src/run/memory_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "serrate/error.h"
#include "sharding/files/quantity.h"
#include "src/core/checked_math.h"
#include "src/model/model_bytes.h"

namespace serrate {
namespace {

// "item (8.0 GiB), country (1.2 MiB)": the largest tables with their optimizer state.
std::string largest_tables(const PlannerModel& model, const ShardingPlan& plan) {
  std::vector<std::pair<std::int64_t, std::string>> tables;
  for (const PlannerTable& table : model.tables) {
    const PlannerModel alone{.tables = {table}, .batch_size = model.batch_size};
    std::int64_t bytes = 0;
    for (const RankMemory& m : predict_memory(alone, plan))
      bytes = sum_of_bytes({bytes, m.weights, m.optimizer});
    tables.emplace_back(-bytes, table.name);
  }
  std::ranges::sort(tables);
  constexpr std::size_t kShown = 3;
  std::string text;
  for (std::size_t i = 0; i < std::min(kShown, tables.size()); ++i) {
    text += fmt::format("{}\"{}\" ({})", i > 0 ? ", " : "", tables[i].second,
                        format_bytes(-tables[i].first));
  }
  return text;
}

/// What some ranks need together.
struct Need {
  std::int64_t weights = 0, optimizer = 0, exchange = 0;
  std::int64_t dense = 0, activations = 0, checkpoint = 0, ranking = 0;

  std::int64_t total() const {
    return sum_of_bytes({weights, optimizer, exchange, dense, activations, checkpoint, ranking});
  }
};

void add(const RankMemory& m, const DenseMemory& d, CheckpointCopy copy, Need& need) {
  const auto into = [](std::int64_t& sum, std::int64_t bytes) { sum = sum_of_bytes({sum, bytes}); };
  into(need.weights, m.weights);
  into(need.optimizer, m.optimizer);
  into(need.exchange, m.exchange);
  into(need.dense, sum_of_bytes({d.parameters, d.sums}));
  into(need.activations, d.activations);
  into(need.ranking, d.ranking);
  if (copy == CheckpointCopy::kNone) return;
  // Values and two moments of the five that are held.
  into(need.checkpoint, sum_of_bytes({m.weights, m.optimizer, d.parameters / 5 * 3}));
}

std::string parts_of(const Need& need) {
  std::string text = fmt::format("tables {}, optimizer {}, exchange {}, dense {}, activations {}",
                                 format_bytes(need.weights), format_bytes(need.optimizer),
                                 format_bytes(need.exchange), format_bytes(need.dense),
                                 format_bytes(need.activations));
  if (need.checkpoint > 0) {
    text += fmt::format(", copy for --checkpoint-every {}", format_bytes(need.checkpoint));
  }
  if (need.ranking > 0) text += fmt::format(", ranking {}", format_bytes(need.ranking));
  return text;
}

}  // namespace

DenseMemory dense_memory(const PlannerModel& model, const TrainOptions& options, int world_size) {
  // Inputs of the items, targets and negatives, as planner_model has them.
  const auto& item_features = model.tables.front().features;
  const double tokens =
      std::ceil(item_features.front().num_poolings * static_cast<double>(model.batch_size));
  const std::int64_t most = std::max(options.micro_batch_tokens, options.model.max_length);
  const std::int64_t negatives =  // of all ranks: each has them all, looked up in parts
      options.negatives > 0 ? options.negatives : model.tables.front().num_rows;
  const std::int64_t parameters = parameter_bytes(options.model);
  // A TreeSum keeps the sums of subtrees, what it sends and what it receives.
  const double shares =
      options.reproducible ? std::ceil(static_cast<double>(options.virtual_ranks) / world_size) : 1;
  const double copies = 3 + std::ceil(std::log2(std::max(shares, 1.0)));
  const double summed = static_cast<double>(parameters) +
                        static_cast<double>(negatives) * static_cast<double>(options.model.dim) * 4;
  return {.parameters = sum_of_bytes({parameters, parameters, parameters, parameters, parameters}),
          .activations = activation_bytes(
              options.model, static_cast<std::int64_t>(std::min(tokens, static_cast<double>(most))),
              negatives),
          .sums = bytes_of(copies * summed)};
}

DenseMemory evaluation_memory(const PlannerModel& model, const TrainOptions& run,
                              const EvaluateOptions& options, std::int64_t num_items,
                              int world_size) {
  DenseMemory memory = dense_memory(model, run, world_size);
  memory.sums = 0;
  // The queries of all ranks, and for each the best rows of this rank, sent and received: a row
  // number and a score.
  constexpr double kCandidateBytes = 3 * (8 + 4), kQueries = 3;
  const auto k = static_cast<double>(std::min(std::ranges::max(options.cutoffs), num_items));
  const auto cases = static_cast<double>(model.batch_size) * world_size;
  memory.ranking =
      bytes_of(cases * (kQueries * static_cast<double>(run.model.dim) * 4 + k * kCandidateBytes));
  return memory;
}

void check_memory(const PlannerModel& model, const ShardingPlan& plan, const DenseMemory& dense,
                  const std::string& limit, const Machines& machines, CheckpointCopy copy) {
  const std::vector<RankMemory> ranks = predict_memory(model, plan);
  if (!limit.empty()) {
    const std::int64_t most = bytes_from_string(limit);
    std::vector<Need> needs(ranks.size());
    Need all;
    for (std::size_t r = 0; r < ranks.size(); ++r) {
      add(ranks[r], dense, copy, needs[r]);
      add(ranks[r], dense, copy, all);
    }
    const auto fullest = std::ranges::max_element(needs, {}, &Need::total);
    const std::int64_t need = fullest->total();
    if (need <= most) return;
    const bool fits_evenly = all.total() / std::ssize(ranks) <= most;
    throw usage_error(fmt::format(
        "rank {} will need {} ({}) and --memory-limit is {}; the largest tables are {} ({}give "
        "each rank {}, or make --dim, --batch-size or --micro-batch-tokens smaller)",
        fullest - needs.begin(), format_bytes(need), parts_of(*fullest), format_bytes(most),
        largest_tables(model, plan),
        fits_evenly ? "spread them by --plan auto, " : "use more ranks, ", format_bytes(need)));
  }
  for (int machine = 0; machine < std::ssize(machines.memory); ++machine) {
    Need sum;
    for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
      if (machines.of_rank[rank] == machine) add(ranks[rank], dense, copy, sum);
    }
    const std::int64_t need = sum.total();
    const std::int64_t available = machines.memory[machine].available;
    if (need <= available) continue;
    throw usage_error(fmt::format(
        "the {} ranks of one machine will need {} ({}) and it has {} to give; the largest tables "
        "are {} (use {:.0f} such machines, an optimizer with less state, or make --dim or "
        "--batch-size smaller)",
        machines.num_ranks(machine), format_bytes(need), parts_of(sum), format_bytes(available),
        largest_tables(model, plan),
        std::ceil(static_cast<double>(need) /
                  static_cast<double>(std::max<std::int64_t>(available, 1))) *
            static_cast<double>(machines.memory.size())));
  }
}

}  // namespace serrate
