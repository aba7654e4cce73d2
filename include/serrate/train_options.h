#pragma once

#include <cstdint>
#include <string>
#include <vector>

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
  std::string device = "auto";   ///< auto, cpu, cuda or cuda:N; see choose_device
  bool reproducible = false;     ///< the same bits on any number of ranks and threads, any plan
  int virtual_ranks = 16;        ///< with reproducible: shares of a batch that are summed in a tree
  std::string checkpoint_every;  ///< steps ("500") or time ("10min"); empty: at the end alone
  int keep_checkpoints = 2;      ///< newest ones that stay
  bool fresh = false;            ///< moves an earlier run in `output` aside instead of resuming it
  AdamWOptions dense_optimizer;
  SparseOptimizerOptions sparse_optimizer;
  DataType embedding_precision = DataType::kFloat32;  ///< EmbeddingTable::data_type of all tables
  InvalidIds invalid_ids = InvalidIds::kError;
  SequenceModelOptions model;
};

struct StepResult {
  std::int64_t step = 0;    ///< from 1
  std::int64_t epoch = 0;   ///< from 0
  double loss = 0;          ///< mean over the tokens of all ranks
  std::int64_t tokens = 0;  ///< of all ranks
};

}  // namespace serrate
