#include "src/train/memory_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "serrate/error.h"
#include "sharding/quantity.h"
#include "src/model/model_bytes.h"

namespace serrate {
namespace {

// "item (8.0 GiB), country (1.2 MiB)": the largest tables with their optimizer state.
std::string largest_tables(const PlannerModel& model, const ShardingPlan& plan) {
  std::vector<std::pair<std::int64_t, std::string>> tables;
  for (const PlannerTable& table : model.tables) {
    const PlannerModel alone{.tables = {table}, .batch_size = model.batch_size};
    std::int64_t bytes = 0;
    for (const RankMemory& m : predict_memory(alone, plan)) bytes += m.weights + m.optimizer;
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

std::string parts_of(const RankMemory& m, const DenseMemory& dense, std::int64_t copied) {
  return fmt::format("tables {}, optimizer {}, exchange {}, dense {}, activations {}{}",
                     format_bytes(m.weights), format_bytes(m.optimizer), format_bytes(m.exchange),
                     format_bytes(dense.parameters), format_bytes(dense.activations),
                     copied > 0 ? ", copy for --checkpoint-every " + format_bytes(copied) : "");
}

void add(const RankMemory& m, RankMemory& sum) {
  sum.weights += m.weights;
  sum.optimizer += m.optimizer;
  sum.exchange += m.exchange;
}

}  // namespace

DenseMemory dense_memory(const PlannerModel& model, const TrainOptions& options) {
  // Inputs of the items, targets and negatives, as planner_model has them.
  const auto& item_features = model.tables.front().features;
  const auto tokens = static_cast<std::int64_t>(
      std::ceil(item_features.front().num_poolings * static_cast<double>(model.batch_size)));
  const std::int64_t num_negatives =
      options.negatives > 0 ? options.negatives : model.tables.front().num_rows;
  const std::int64_t most = std::max(options.micro_batch_tokens, options.model.max_length);
  return {5 * parameter_bytes(options.model),  // values, gradients, two moments, decay
          activation_bytes(options.model, std::min(tokens, most), num_negatives)};
}

void check_memory(const PlannerModel& model, const ShardingPlan& plan, const DenseMemory& dense,
                  const std::string& limit, const Machines& machines, CheckpointCopy copy) {
  const std::vector<RankMemory> ranks = predict_memory(model, plan);
  // Tables, their state and, of the dense parameters, values and two moments of five.
  const auto copied = [&](const RankMemory& m, std::int64_t num_ranks) {
    if (copy == CheckpointCopy::kNone) return std::int64_t{0};
    return m.weights + m.optimizer + num_ranks * (dense.parameters / 5 * 3);
  };
  const std::int64_t beside = dense.parameters + dense.activations;
  if (!limit.empty()) {
    const std::int64_t most = bytes_from_string(limit);
    const auto fullest = std::ranges::max_element(ranks, {}, &RankMemory::total);
    const std::int64_t need = fullest->total() + beside + copied(*fullest, 1);
    if (need <= most) return;
    RankMemory all;
    for (const RankMemory& m : ranks) add(m, all);
    const auto num_ranks = static_cast<std::int64_t>(ranks.size());
    const bool fits_evenly = (all.total() + copied(all, num_ranks)) / num_ranks + beside <= most;
    throw usage_error(fmt::format(
        "rank {} will need {} ({}) and --memory-limit is {}; the largest tables are {} ({}give "
        "each rank {}, or make --dim, --batch-size or --micro-batch-tokens smaller)",
        fullest - ranks.begin(), format_bytes(need), parts_of(*fullest, dense, copied(*fullest, 1)),
        format_bytes(most), largest_tables(model, plan),
        fits_evenly ? "spread them by --plan auto, " : "use more ranks, ", format_bytes(need)));
  }
  for (int machine = 0; machine < std::ssize(machines.memory); ++machine) {
    RankMemory sum;
    for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
      if (machines.of_rank[rank] == machine) add(ranks[rank], sum);
    }
    const std::int64_t num_ranks = machines.num_ranks(machine);
    const std::int64_t need = sum.total() + num_ranks * beside + copied(sum, num_ranks);
    const std::int64_t available = machines.memory[machine].available;
    if (need <= available) continue;
    const DenseMemory of_all{num_ranks * dense.parameters, num_ranks * dense.activations};
    throw usage_error(fmt::format(
        "the {} ranks of one machine will need {} ({}) and it has {} to give; the largest tables "
        "are {} (use {:.0f} such machines, an optimizer with less state, or make --dim smaller)",
        num_ranks, format_bytes(need), parts_of(sum, of_all, copied(sum, num_ranks)),
        format_bytes(available), largest_tables(model, plan),
        std::ceil(static_cast<double>(need) /
                  static_cast<double>(std::max<std::int64_t>(available, 1))) *
            static_cast<double>(machines.memory.size())));
  }
}

}  // namespace serrate
