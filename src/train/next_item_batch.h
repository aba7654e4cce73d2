#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "serrate/buffer.h"
#include "serrate/event.h"
#include "serrate/jagged_tensor.h"
#include "serrate/train_options.h"
#include "src/data/sequence_reader.h"
#include "src/model/sequence_encoder.h"

namespace serrate {

/// The features of a next-item batch, beside the categorical ones of the dataset.
inline constexpr const char* kTargetFeature = "target";
inline constexpr const char* kNegativeFeature = "negative";

/// Whole sequences of a share that pass through the encoder together: few enough tokens for their
/// activations to stay in the caches, and for memory not to grow with the batch.
struct MicroBatch {
  std::int64_t first_token = 0;
  Buffer<std::int64_t> sequence_offsets;  // [num_sequences + 1] in tokens, from 0
  std::int64_t num_tokens = 0;
  std::int64_t num_sequences() const { return sequence_offsets.size() - 1; }
  std::int64_t end_token() const { return first_token + num_tokens; }
};

/// Next-item training (SASRec): the inputs of a window are all events but its last, the targets
/// all but its first; the negatives are shared by the step and the same on every rank, each of
/// which looks up a part of them.
struct NextItemBatch {
  std::int64_t epoch = 0;
  KeyedJaggedTensor features;
  std::vector<MicroBatch> micro_batches;   // all sequences, in order
  std::vector<std::int64_t> share_begins;  // [shares of this rank + 1] into micro_batches
  Buffer<std::int64_t> positions;          // [num_tokens]
  Buffer<std::int64_t> token_ids;          // [num_tokens], unique over ranks
  Buffer<std::int64_t> target_ids;         // [num_tokens]
  Buffer<std::int64_t> negative_ids;       // [num_negatives], of all ranks
  std::int64_t dropped_events = 0;         // by InvalidIds::kDrop
  Event is_on_device;                      // on the stream it was made on

  std::int64_t num_tokens() const { return positions.size(); }
  TokenBatch tokens(const MicroBatch& part) const;
};

/// Sizes that a batch keeps to.
struct BatchShape {
  std::int64_t max_length = 200;           // inputs of a sequence
  std::int64_t micro_batch_tokens = 1024;  // of a micro-batch of several sequences
  std::int64_t num_items = 0;
  InvalidIds invalid_ids = InvalidIds::kError;  // kDrop: events of an unknown item are left out
  int rank = 0, world_size = 1;                 // the negatives are looked up by all ranks
};
/// What the reader of a batch does by the policy: what is no error later is none when it is read.
UnknownIds unknown_ids(InvalidIds policy);
BatchShape batch_shape(const TrainOptions& options, std::int64_t num_items);

/// The shares of a global batch (see BatchShares): with options.reproducible virtual_ranks of them,
/// whatever the world size; else one for each rank. Error (usage) when there are more ranks.
BatchShares batch_shares(const TrainOptions& options, int rank, int world_size);

/// [num_negatives] uniform item ids of a step; every item once when num_negatives is 0.
std::vector<std::int64_t> draw_negatives(std::int64_t num_negatives, std::int64_t num_items,
                                         std::uint64_t seed, std::int64_t step);

/// `names` are the features of `sequences`, the item first; windows are at most max_length + 1
/// events long.
NextItemBatch make_next_item_batch(const SequenceBatch& sequences,
                                   const std::vector<std::string>& names,
                                   const std::vector<std::int64_t>& negatives,
                                   const BatchShape& shape, const Stream& stream);

/// For evaluation: the inputs are all events, at most max_length a sequence; there are no targets
/// and no negatives.
NextItemBatch make_history_batch(const SequenceBatch& sequences,
                                 const std::vector<std::string>& names, const BatchShape& shape,
                                 const Stream& stream);

}  // namespace serrate
