#pragma once

#include <cstdint>
#include <vector>

#include "comm/tree_sum.h"
#include "serrate/communicator.h"
#include "serrate/sharded_embedding.h"
#include "serrate/train_options.h"
#include "src/model/item_head.h"
#include "src/model/sequence_encoder.h"
#include "src/train/next_item_batch.h"
#include "src/train/stage_times.h"

namespace serrate {

/// What a step reads and changes on one rank.
struct TrainState {
  /// `tables` are named as the event features they serve, the item's first; it also serves
  /// kTargetFeature and kNegativeFeature. Collective.
  TrainState(std::vector<EmbeddingTable> tables, ShardingPlan plan, const TrainOptions& options,
             Communicator& communicator, const Stream& stream);

  Communicator& communicator;
  const Stream& stream;
  ShardedEmbedding embedding;
  EmbeddingExchange exchange;
  SequenceEncoder encoder;
  ItemHead head;
  AdamWOptions dense_optimizer;
  TreeSum dense_sum, negatives_sum;         // over the shares of a batch
  std::vector<std::int64_t> event_lookups;  // features of a token, the item first
  std::int64_t target_lookup = 0;
  std::int64_t negative_lookup = 0;
  Buffer<float> negatives, d_negatives;  // [num_negatives, dim]: of all ranks, of a share
  Buffer<float> d_hidden;                // [tokens of a micro-batch, dim]
  Buffer<double> losses;                 // [num micro-batches], sums over their tokens
  StageTimes times;
};

/// The tokens of all ranks, by which the losses and gradients of a step are divided. Host
/// collective, which a training has no need of after its first step: exchange_reports knows.
std::int64_t count_tokens(const NextItemBatch& batch, Communicator& communicator);

/// One step on every rank: the life of a batch (docs/architecture.md). `step` counts from 1. The
/// losses of this rank's shares, sums over their tokens; waits for the stream.
std::vector<double> train_step(TrainState& state, const NextItemBatch& batch,
                               std::int64_t total_tokens, std::int64_t step);

/// Over all tokens; 0 when there are none.
inline double mean_loss(double sum, std::int64_t tokens) {
  return tokens > 0 ? sum / static_cast<double>(tokens) : 0;
}

struct TrainStepResult {
  double loss = 0;          // mean over the tokens of all ranks
  std::int64_t tokens = 0;  // of all ranks
};

/// The same with the collectives before and after it.
TrainStepResult train_step(TrainState& state, const NextItemBatch& batch, std::int64_t step);

}  // namespace serrate
