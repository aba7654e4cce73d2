#include "src/run/memory_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "serrate/error.h"
#include "sharding/files/quantity.h"
#include "src/core/checked_math.h"
#include "src/evaluate/distributed_top_k.h"
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
  std::int64_t dense = 0, activations = 0, checkpoint = 0, ranking = 0, baselines = 0;

  std::int64_t total() const {
    return sum_of_bytes(
        {weights, optimizer, exchange, dense, activations, checkpoint, ranking, baselines});
  }
};

void add(std::int64_t bytes, std::int64_t& sum) {
  sum = sum_of_bytes({sum, bytes});
}

void add(const Need& more, Need& sum) {
  for (const auto part :
       {&Need::weights, &Need::optimizer, &Need::exchange, &Need::dense, &Need::activations,
        &Need::checkpoint, &Need::ranking, &Need::baselines}) {
    add(more.*part, sum.*part);
  }
}

void add_model(const RankMemory& m, const DenseMemory& d, Need& need) {
  add({.weights = m.weights,
       .optimizer = m.optimizer,
       .exchange = m.exchange,
       .dense = sum_of_bytes({d.parameters, d.sums}),
       .activations = d.activations,
       .ranking = d.ranking},
      need);
}

// Rank 0 counts the baselines before it exchanges and ranks anything, and has freed what they took
// by then: it needs the larger of both.
void add_baselines(std::int64_t bytes, Need& need) {
  if (bytes <= sum_of_bytes({need.exchange, need.activations, need.ranking})) return;
  need.exchange = need.activations = need.ranking = 0;
  need.baselines = bytes;
}

// Values and two moments of the five that are held.
void add_copy(const RankMemory& m, const DenseMemory& d, Need& need) {
  add(sum_of_bytes({m.weights, m.optimizer, d.parameters / 5 * 3}), need.checkpoint);
}

std::string parts_of(const Need& need) {
  std::string text;
  const auto part = [&](const char* name, std::int64_t bytes) {
    if (bytes == 0) return;
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", name, format_bytes(bytes));
  };
  part("tables", need.weights);
  part("optimizer", need.optimizer);
  part("exchange", need.exchange);
  part("dense", need.dense);
  part("activations", need.activations);
  part("copy for --checkpoint-every", need.checkpoint);
  part("ranking", need.ranking);
  part("baselines", need.baselines);
  return text;
}

/// Why ranks do not have what they need.
using Shortage = std::optional<std::string>;
using Text = std::function<std::string()>;  // made only where it is shown

Shortage beyond_limit(const std::vector<Need>& needs, std::int64_t most, const Text& largest,
                      DeviceType device) {
  Need all;
  for (const Need& need : needs) add(need, all);
  const auto fullest = std::ranges::max_element(needs, {}, &Need::total);
  const std::int64_t need = fullest->total();
  if (need <= most) return std::nullopt;
  const bool fits_evenly = all.total() / std::ssize(needs) <= most;
  return fmt::format(
      "rank {} will need {} ({}) and --memory-limit is {}; the largest tables are {} ({}give "
      "each rank {}, or make --dim{} smaller)",
      fullest - needs.begin(), format_bytes(need), parts_of(*fullest), format_bytes(most),
      largest(), fits_evenly ? "spread them by --plan auto, " : "use more ranks, ",
      format_bytes(need),
      device == DeviceType::kCpu ? ", --batch-size or --micro-batch-tokens"
                                 : ", --max-length or --batch-size");
}

/// `what` has the memory: "machine".
Shortage beyond_shared(const std::vector<Need>& needs, const SharedMemory& shared,
                       const std::string& what, const Text& largest) {
  for (int number = 0; number < std::ssize(shared.memory); ++number) {
    Need sum;
    for (std::size_t rank = 0; rank < needs.size(); ++rank) {
      if (shared.of_rank[rank] == number) add(needs[rank], sum);
    }
    const std::int64_t need = sum.total();
    const std::int64_t available = shared.memory[number].available;
    if (need <= available) continue;
    if (sum.baselines > available) {
      return fmt::format(
          "the baselines, which rank 0 counts, will need {} and its {} has {} to give (evaluate on "
          "a {} with more memory)",
          format_bytes(sum.baselines), what, format_bytes(available), what);
    }
    return fmt::format(
        "the {} rank{} of one {} will need {} ({}) and it has {} to give; the largest tables "
        "are {} (use {:.0f} such {}s, an optimizer with less state, or make --dim, "
        "--max-length or --batch-size smaller)",
        shared.num_ranks(number), shared.num_ranks(number) == 1 ? "" : "s", what,
        format_bytes(need), parts_of(sum), format_bytes(available), largest(),
        std::ceil(static_cast<double>(need) /
                  static_cast<double>(std::max<std::int64_t>(available, 1))) *
            static_cast<double>(shared.memory.size()),
        what);
  }
  return std::nullopt;
}

Shortage find_shortage(const PlannerModel& model, const ShardingPlan& plan,
                       const DenseMemory& dense, const std::string& limit, const Machines& machines,
                       MemoryUse use) {
  const bool on_gpus = machines.device_type() == DeviceType::kCuda;
  std::vector<Need> needs, beside;  // where the model is, and in the memory of GPUs' machines
  for (const RankMemory& rank : predict_memory(model, plan)) {
    add_model(rank, dense, needs.emplace_back());
    Need& host = on_gpus ? beside.emplace_back() : needs.back();
    if (needs.size() == 1) add_baselines(dense.baselines, host);
    if (use != MemoryUse::kEvaluation) add(rank.ahead, needs.back().exchange);
    if (use == MemoryUse::kTrainingWithCopy) add_copy(rank, dense, host);
  }
  const Text largest = [&] { return largest_tables(model, plan); };
  if (!limit.empty()) {
    return beyond_limit(needs, bytes_from_string(limit), largest, machines.device_type());
  }
  if (on_gpus) {
    if (Shortage shortage = beyond_shared(needs, machines.gpus, "GPU", largest)) return shortage;
  }
  return beyond_shared(on_gpus ? beside : needs, machines.host, "machine", largest);
}

}  // namespace

// Inputs of the items, targets and negatives, as planner_model has them.
std::int64_t mean_tokens(const PlannerModel& model) {
  const auto& item_features = model.tables.front().features;
  return static_cast<std::int64_t>(
      std::ceil(item_features.front().num_poolings * static_cast<double>(model.batch_size)));
}

DenseMemory dense_memory(const PlannerModel& model, const TrainOptions& options,
                         const Machines& machines, std::int64_t num_tokens) {
  const std::int64_t negatives =  // of all ranks: each has them all, looked up in parts
      options.negatives > 0 ? options.negatives : model.tables.front().num_rows;
  const std::int64_t parameters = parameter_bytes(options.model);
  // A TreeSum keeps the sums of subtrees, what it sends and what it receives.
  const double shares =
      options.reproducible
          ? std::ceil(static_cast<double>(options.virtual_ranks) / machines.world_size())
          : 1;
  const double copies = 3 + std::ceil(std::log2(std::max(shares, 1.0)));
  const double summed = static_cast<double>(parameters) +
                        static_cast<double>(negatives) * static_cast<double>(options.model.dim) * 4;
  const std::int64_t workspace = machines.device_type() == DeviceType::kCuda
                                     ? gpu_workspace_bytes(options.model, num_tokens, negatives)
                                     : 0;
  return {.parameters = sum_of_bytes({parameters, parameters, parameters, parameters, parameters}),
          .activations =
              sum_of_bytes({activation_bytes(options.model, num_tokens, negatives), workspace}),
          .sums = bytes_of(copies * summed)};
}

DenseMemory evaluation_memory(const PlannerModel& model, const TrainOptions& run,
                              const EvaluateOptions& options, std::int64_t num_items,
                              const Machines& machines, std::int64_t num_tokens) {
  DenseMemory memory = dense_memory(model, run, machines, num_tokens);
  memory.sums = 0;
  // The queries of all ranks, and for each the best rows of this rank, sent and received: a row
  // number and a score.
  constexpr double kCandidateBytes = 3 * (8 + 4), kQueries = 3;
  const auto k = static_cast<double>(std::min(std::ranges::max(options.cutoffs), num_items));
  const auto cases = static_cast<double>(model.batch_size) * machines.world_size();
  const double row_bytes = static_cast<double>(run.model.dim) * 4;
  // Rows are scored piece by piece: scores of all queries, and in float32 what is in 16 bits.
  // Columns of other ranks do not come: default_plan, by which models are evaluated, cuts none.
  const std::int64_t piece = std::min(kRowsScoredAtOnce, num_items);
  const std::int64_t scored = (piece + kRowScoresRoom - 1) / kRowScoresRoom * kRowScoresRoom;
  const auto widened =
      static_cast<double>(run.embedding_precision == DataType::kFloat32 ? 0 : piece);
  constexpr double kBuffer = 1.25;  // a Buffer has a quarter more
  memory.ranking =
      bytes_of(cases * (kQueries * row_bytes + k * kCandidateBytes) +
               kBuffer * (cases * static_cast<double>(scored) * 4 + widened * row_bytes));
  return memory;
}

void check_memory(const PlannerModel& model, const ShardingPlan& plan, const DenseMemory& dense,
                  const std::string& limit, const Machines& machines, MemoryUse use) {
  if (const Shortage shortage = find_shortage(model, plan, dense, limit, machines, use)) {
    throw usage_error(*shortage);
  }
}

std::int64_t tokens_that_fit(const PlannerModel& model, const ShardingPlan& plan,
                             const std::function<DenseMemory(std::int64_t tokens)>& dense,
                             std::int64_t least, std::int64_t most, const std::string& limit,
                             const Machines& machines, MemoryUse use) {
  Machines roomy = machines;
  for (MachineMemory& memory : roomy.gpus.memory) memory.available -= memory.available / 10;
  const auto fits = [&](std::int64_t tokens) {
    return !find_shortage(model, plan, dense(tokens), limit, roomy, use);
  };
  if (fits(most)) return most;
  while (most - least > 1) {  // most does not fit
    const std::int64_t middle = least + (most - least) / 2;
    (fits(middle) ? least : most) = middle;
  }
  return least;
}

}  // namespace serrate
