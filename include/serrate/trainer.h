#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "serrate/communicator.h"
#include "serrate/embedding_table.h"
#include "serrate/kernels/adamw.h"
#include "serrate/sequence_model_options.h"
#include "serrate/sharded_embedding.h"
#include "serrate/training_windows.h"

namespace serrate {

struct TrainOptions {
  std::string data;      ///< dataset file
  std::string output;    ///< run directory
  std::string plan;      ///< plan file, or "auto"; empty for default_plan
  std::string topology;  ///< for plan auto: topology file; empty: this machine, roughly
  std::vector<std::string> sharding_types;  ///< for plan auto: that tables may have; empty: any
  std::string memory_limit;         ///< of a rank, such as "8GiB"; empty: what the machine has
  int ranks_per_node = 0;           ///< of the job; 0: the plan's, else one node of all ranks
  std::string split = "last-item";  ///< last-item, last-basket or time
  double time_quantile = 0.9;       ///< where split=time cuts the events
  std::string metrics;              ///< JSONL file; empty means output/metrics.jsonl
  std::int64_t epochs = 10;
  std::int64_t steps = 0;                  ///< when above 0, instead of epochs
  std::int64_t batch_size = 128;           ///< sequences of all ranks together
  std::int64_t micro_batch_tokens = 1024;  ///< tokens that pass through the encoder at once
  TrainingWindows windows = TrainingWindows::kAll;
  std::int64_t negatives = 512;  ///< shared by a step; 0 means every item (full softmax)
  std::uint64_t seed = 1;
  int threads = 1;               ///< OpenMP threads of a rank
  bool reproducible = false;     ///< the same bits on any number of ranks and threads, any plan
  int virtual_ranks = 16;        ///< with reproducible: shares of a batch that are summed in a tree
  std::string checkpoint_every;  ///< steps ("500") or time ("10min"); empty: at the end alone
  int keep_checkpoints = 2;      ///< newest ones that stay
  bool fresh = false;            ///< moves an earlier run in `output` aside instead of resuming it
  AdamWOptions dense_optimizer;
  SparseOptimizerOptions sparse_optimizer;
  InvalidIds invalid_ids = InvalidIds::kError;
  SequenceModelOptions model;
};

struct StepResult {
  std::int64_t step = 0;    ///< from 1
  std::int64_t epoch = 0;   ///< from 0
  double loss = 0;          ///< mean over the tokens of all ranks
  std::int64_t tokens = 0;  ///< of all ranks
};

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

  const TrainOptions& options() const;
  std::int64_t steps_per_epoch() const;
  std::int64_t total_steps() const;
  bool done() const;
  /// Of the whole run, with those of earlier processes.
  std::int64_t steps_done() const;
  /// One step of every rank.
  StepResult step();
  /// Steps until done, or until `stop` is set on any rank; writes the configuration, a line of
  /// metrics per step, a checkpoint every options().checkpoint_every and one at the end, also when
  /// stopped, to options().output. Returns false when stopped.
  bool run(const std::atomic<bool>& stop, const std::function<void(const StepResult&)>& on_step);
  /// Writes a checkpoint (docs/checkpoint_format.md) to options().output: all that evaluate() and
  /// another Trainer need. It is on disk when this returns.
  void save();
  /// Ids that InvalidIds::kDrop left out or kOov replaced so far, on all ranks; collective. A
  /// dropped item takes its event with it.
  std::int64_t invalid_ids();
  /// Seconds spent in each stage so far on this rank, in the order of the step.
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
};

/// HR@K and NDCG@K by scorer ("model", "popularity", "repeat", "markov"): metrics["hr@10"].
struct EvaluationResult {
  std::vector<std::pair<std::string, std::map<std::string, double>>> scorers;
  std::int64_t users = 0;
};

/// Ranks all items for every held-out case of the run's split (full ranking, distributed top-k
/// through the sharded item table). Collective; the result is the same on every rank.
EvaluationResult evaluate(const EvaluateOptions& options, Communicator& communicator);

/// {"model": {"hr@10": .., "ndcg@10": ..}, "popularity": {..}, ..., "users": N}
std::string to_json(const EvaluationResult& result);

/// What is in a run directory, for people. Every byte of its checkpoints is read.
struct RunReport {
  std::string text;
  int num_intact = 0;   ///< checkpoints
  int num_damaged = 0;  ///< checkpoints, configuration, plan
};
RunReport describe_run(const std::string& directory);

}  // namespace serrate
