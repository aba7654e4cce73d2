#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "serrate/communicator.h"
#include "serrate/sharded_embedding.h"
#include "serrate/train_options.h"

namespace serrate {

/// Trains from a dataset file; collective over the communicator, which has to outlive it.
class Trainer {
 public:
  /// Reads the dataset, checks that options, plan and data agree on all ranks (Error naming field
  /// and rank) and makes the model. When options.output holds checkpoints it goes on from the
  /// newest intact one, which may be of other ranks and another plan; Error (usage) naming the
  /// option when it is of another model, order of data or dataset. Until it is destroyed no other
  /// Trainer, of any process, has the output.
  Trainer(TrainOptions options, Communicator& communicator);
  ~Trainer();

  /// As given, but for the device: what "auto" came to.
  const TrainOptions& options() const;
  std::int64_t steps_per_epoch() const;
  std::int64_t total_steps() const;
  bool done() const;
  /// Steps of the whole run, those of earlier processes included.
  std::int64_t steps_done() const;
  /// One step of every rank. Steps that a run() left unreported, when its on_step threw, are looked
  /// at first.
  StepResult step();
  /// Steps until done, or until `stop` is set on any rank; writes the configuration, a line of
  /// metrics per step, a checkpoint every options().checkpoint_every and one at the end, also when
  /// stopped, to options().output. Returns false when stopped. Ranks look at `stop` once a step,
  /// when they exchange losses: what `on_step` sets is seen after the next step. On a GPU `on_step`
  /// is told of a step when the next one has been queued, so that two more are made.
  /// A batch that is wrong on some rank is an Error on every one, after the steps before it.
  bool run(const std::atomic<bool>& stop, const std::function<void(const StepResult&)>& on_step);
  /// Writes a checkpoint (docs/checkpoint_format.md) to options().output: all that evaluate() and
  /// another Trainer need. It is on disk when this returns. Not for on_step: see checkpoint_every.
  void save();
  /// Ids that InvalidIds::kDrop left out or kOov replaced so far, on all ranks; collective. A
  /// dropped item takes its event with it.
  std::int64_t invalid_ids();
  /// Seconds spent in each stage so far on this rank, in the order of the step. On a GPU input_dist
  /// runs beside the others, with all that it waits for.
  std::vector<std::pair<std::string, double>> stage_seconds() const;
  /// Bytes held on this rank by part: tables, optimizer, dense, exchange, checkpoint (the copy that
  /// is being written), activations.
  std::vector<std::pair<std::string, std::int64_t>> memory_bytes() const;
  ShardedEmbedding& embedding();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

struct EvaluateOptions {
  std::string data;
  std::string model;  ///< run directory
  std::vector<std::int64_t> cutoffs = {10};
  bool filter_seen = false;       ///< leave items of the history out of the ranking
  std::int64_t batch_size = 256;  ///< sequences of all ranks together
  int threads = 1;
  std::string device = "auto";             ///< auto, cpu, cuda or cuda:N; see choose_device
  Precision precision = Precision::kFp32;  ///< whatever the model was trained in
};

/// HR@K and NDCG@K by scorer ("model", "popularity", "repeat", "markov"): metrics["hr@10"].
struct EvaluationResult {
  std::vector<std::pair<std::string, std::map<std::string, double>>> scorers;
  std::string device;  ///< that the ranks worked on: cpu, or cuda or cuda:N as it was given
  Precision precision = Precision::kFp32;
  std::int64_t users = 0;
  std::int64_t users_left_out = 0;  ///< whose target is an invalid id or who have no valid history
};

/// Ranks all items for every held-out case of the run's split (full ranking, distributed top-k
/// through the sharded item table). Collective; the result is the same on every rank.
EvaluationResult evaluate(const EvaluateOptions& options, Communicator& communicator);

/// {"model": {"hr@10": .., "ndcg@10": ..}, "popularity": {..}, ..., "device": "cpu", "precision":
/// "fp32", "users": N, "users_left_out": M}
std::string to_json(const EvaluationResult& result);

/// What is in a run directory, for people. Every byte of its checkpoints is read.
struct RunReport {
  std::string text;
  int num_intact = 0;   ///< checkpoints
  int num_damaged = 0;  ///< checkpoints, configuration, plan
};
RunReport describe_run(const std::string& directory);

}  // namespace serrate
