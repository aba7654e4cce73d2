#pragma once

#include <cstdint>
#include <vector>

#include "src/embedding/sharded_embedding_impl.h"

namespace serrate {

/// What a rank's batch is. kNoIds goes with either of the next.
enum class BatchKind : std::int64_t { kFailed = -1, kNoIds = 0, kUnweighted = 1, kWeighted = 2 };

/// The one host collective of a batch, after which every rank knows the sizes of all that will come
/// to it, in all hops, there and back. What one rank tells another is, in words of 64 bits:
///   [kind]         BatchKind
///   [bags, ids] of
///     each piece of `direct` that the receiver serves
///     each piece of `replicated`
///     and for each piece of `to_node` that the receiver's node serves:
///       the piece, and its part in each row block, if the receiver is the one to pass it on
///       its part in each row block that the receiver owns
/// or, from a rank whose batch is wrong, so that all ranks report the same error and none waits:
///   [kFailed, ErrorKind, number of bytes, the text padded to whole words]
struct BatchCounts {
  std::vector<std::int64_t> words;        ///< rank after rank
  std::vector<std::int64_t> word_counts;  ///< [ranks]
};

/// The counts of the parted ids in the state.
BatchCounts counts_of_batch(const ShardedEmbedding::Impl& impl, const EmbeddingInput::State& state,
                            BatchKind kind);
BatchCounts counts_of_failure(const Error& error, int num_ranks);

/// Lays out the messages of all hops in the state, and says there whether they have weights. When
/// a rank's batch is wrong, or some batches have weights and others none, it is State::failure, the
/// same on every rank, and nothing of the batch is to be used.
void exchange_counts(const BatchCounts& own, ShardedEmbedding::Impl& impl,
                     EmbeddingInput::State& state);

}  // namespace serrate
