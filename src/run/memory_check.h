#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "serrate/planner.h"
#include "serrate/trainer.h"
#include "src/run/machines.h"

namespace serrate {

/// What every rank holds beside its tables and their exchange, in bytes.
struct DenseMemory {
  std::int64_t parameters = 0;  ///< with gradients and optimizer state
  std::int64_t activations = 0;
  std::int64_t sums = 0;       ///< of gradients over shares and ranks
  std::int64_t ranking = 0;    ///< of evaluate
  std::int64_t baselines = 0;  ///< of rank 0 alone, in its machine's memory, before it ranks
};
/// Tokens of a batch, in the mean.
std::int64_t mean_tokens(const PlannerModel& model);
/// With so many tokens at once.
DenseMemory dense_memory(const PlannerModel& model, const TrainOptions& options,
                         const Machines& machines, std::int64_t num_tokens);
/// What evaluate needs on a table of `num_items` rows.
DenseMemory evaluation_memory(const PlannerModel& model, const TrainOptions& run,
                              const EvaluateOptions& options, std::int64_t num_items,
                              const Machines& machines, std::int64_t num_tokens);

/// A training has the ids of the next batch too, and a copy of its state where it writes
/// checkpoints while it goes on.
enum class MemoryUse { kEvaluation, kTraining, kTrainingWithCopy };

/// Throws Error (usage), with the tables, the bytes and what would make them fit, when a rank will
/// need more than `limit` ("8GiB"), or, where that is empty, the ranks of a machine together more
/// than it has to give. Ranks on GPUs need their memory, and the machine's for the copy and the
/// baselines alone.
void check_memory(const PlannerModel& model, const ShardingPlan& plan, const DenseMemory& dense,
                  const std::string& limit, const Machines& machines, MemoryUse use);

/// The most tokens, from `least` to `most`, that fit into the memory which check_memory() looks at,
/// a tenth of a GPU's left to what nobody counts, such as libraries; `least` if not even that many
/// do. `dense` says what a number of tokens needs.
std::int64_t tokens_that_fit(const PlannerModel& model, const ShardingPlan& plan,
                             const std::function<DenseMemory(std::int64_t tokens)>& dense,
                             std::int64_t least, std::int64_t most, const std::string& limit,
                             const Machines& machines, MemoryUse use);

}  // namespace serrate
