#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "serrate/buffer.h"
#include "serrate/jagged_tensor.h"
#include "src/data/sequence_reader.h"
#include "src/model/sequence_encoder.h"

namespace serrate {

/// The features of a next-item batch, beside the categorical ones of the dataset.
inline constexpr const char* kTargetFeature = "target";
inline constexpr const char* kNegativeFeature = "negative";

/// Next-item training (SASRec): the inputs of a window are all events but its last, the targets
/// all but its first; the negatives are shared by the step and the same on every rank.
struct NextItemBatch {
  std::int64_t epoch = 0;
  KeyedJaggedTensor features;
  Buffer<std::int64_t> sequence_offsets;  // [batch_size + 1] in tokens
  Buffer<std::int64_t> positions;         // [num_tokens]
  Buffer<std::int64_t> token_ids;         // [num_tokens], unique over ranks
  Buffer<std::int64_t> target_ids;        // [num_tokens]
  Buffer<std::int64_t> negative_ids;      // [num_negatives]
  TokenBatch tokens() const {
    return {sequence_offsets.span(), positions.span(), token_ids.span()};
  }
};

/// [num_negatives] uniform item ids of a step; every item once when num_negatives is 0.
std::vector<std::int64_t> draw_negatives(std::int64_t num_negatives, std::int64_t num_items,
                                         std::uint64_t seed, std::int64_t step);

/// `names` are the features of `sequences`, the item first; windows are at most max_length + 1
/// events long.
NextItemBatch make_next_item_batch(const SequenceBatch& sequences,
                                   const std::vector<std::string>& names,
                                   const std::vector<std::int64_t>& negatives,
                                   std::int64_t max_length, const Stream& stream);

/// For evaluation: the inputs are all events, at most max_length a sequence; there are no targets
/// and no negatives.
NextItemBatch make_history_batch(const SequenceBatch& sequences,
                                 const std::vector<std::string>& names, std::int64_t max_length,
                                 const Stream& stream);

}  // namespace serrate
