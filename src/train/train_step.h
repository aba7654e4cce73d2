#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "comm/tree_sum.h"
#include "serrate/communicator.h"
#include "serrate/event.h"
#include "serrate/host_buffer.h"
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
  ~TrainState();

  Communicator& communicator;
  const Stream& stream;
  Stream input_stream;  // of the ids of the next batch, while `stream` makes the step before
  Stream dense_stream;  // of the dense all-reduce, beside the embedding's backward on `stream`
  Event last_begun;     // where the step that was queued last begins on `stream`
  ShardedEmbedding embedding;
  EmbeddingExchange exchange;
  EmbeddingInput ahead;  // of the batch that prepare_batch had last
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
  std::array<HostBuffer<double>, 2> losses_on_host;  // of steps that are odd and even
  StageTimes times;
};

/// The tokens of all ranks, by which the losses and gradients of a step are divided. Host
/// collective, which a training has no need of after its first step: exchange_reports knows.
std::int64_t count_tokens(const NextItemBatch& batch, Communicator& communicator);

/// Parts and counts the ids of a batch while the device makes the step before, waits for the
/// counts, and queues what sends the ids to the owners of their rows. Under NCCL they move when the
/// collectives queued before have: those of one communicator are in order over all streams.
/// Collective.
void prepare_batch(TrainState& state, const NextItemBatch& batch);

/// Queues one step on every rank: the life of the batch that was prepared last
/// (docs/architecture.md). `step` counts from 1. Nothing here waits for the device. The batch stays
/// until the device has done it. An Error, the same on all ranks, if a rank's batch is wrong.
void train_step(TrainState& state, const NextItemBatch& batch, std::int64_t total_tokens,
                std::int64_t step);

/// The losses of this rank's shares, sums over their tokens, of a step that `state.stream` has
/// passed, until the next but one is queued.
std::vector<double> share_losses(const TrainState& state, const NextItemBatch& batch,
                                 std::int64_t step);

/// Over all tokens; 0 when there are none.
inline double mean_loss(double sum, std::int64_t tokens) {
  return tokens > 0 ? sum / static_cast<double>(tokens) : 0;
}

struct TrainStepResult {
  double loss = 0;          // mean over the tokens of all ranks
  std::int64_t tokens = 0;  // of all ranks
};

/// The step with all before and after it, for one batch after the other; waits for the stream.
TrainStepResult train_step(TrainState& state, const NextItemBatch& batch, std::int64_t step);

}  // namespace serrate
