#pragma once

#include <optional>
#include <vector>

#include "serrate/event.h"
#include "serrate/kernels/embedding_lookup.h"
#include "serrate/kernels/embedding_update.h"
#include "serrate/kernels/permute_bags.h"
#include "serrate/sharded_embedding.h"
#include "src/embedding/batch_lookup.h"
#include "src/embedding/messages.h"

namespace serrate {

/// For a shard that is cut by columns: sums of squares of its rows that have a gradient.
struct RowSquares {
  std::int64_t num_values = 0;   ///< one for each id of its batch, see gradient_row_squares
  std::vector<LeafRange> nodes;  ///< of the tree over all columns of the table
  std::int64_t begin = 0;        ///< of its [nodes, num_values] in State::squares
  DeviceSpan<const float> sums;  ///< [num_values]: over all columns
};

/// The two sides of a hop on one rank.
struct HopMessages {
  Messages requested;  ///< by this rank, of the ranks of the group
  Messages served;     ///< by this rank, to each of them

  std::int64_t bytes() const { return requested.bytes() + served.bytes(); }
};

/// Buffers only grow, so a training loop allocates nothing after its largest batches.
struct EmbeddingInput::State {
  std::vector<BatchLookup> lookups;
  PartedIds parts;                     ///< of the lookups
  std::vector<BatchLookup> passed_on;  ///< the lookups of Routing::in_node
  PartedIds passed_on_parts;
  std::vector<BagCounts> passed_on_counts;  ///< of the row blocks of passed_on, one after the other
  std::int64_t output_size = 0;             ///< floats of all outputs,
  std::int64_t unpooled_size = 0;           ///< and of the rows of unpooled lookups
  Buffer<std::int64_t> positions;           ///< 0, 1, 2, ...
  bool weighted = false;                    ///< some rank's batch is
  std::int64_t num_invalid_ids = 0;         ///< of this rank, not counted as the embedding's yet
  std::optional<Error> failure;             ///< of all ranks: some rank's batch is wrong

  HopMessages direct, to_node, in_node;  ///< of the hops of this name in Routing
  Messages replicated;                   ///< this rank's own, of the data-parallel tables
  Messages gathered;                     ///< every rank's `replicated`, for the update

  bool waits = false;  ///< for its step
  Event is_there;      ///< on the stream of input_dist
  Event was_taken;     ///< on the stream of a step, when the step after it took another batch
  Event may_be_sent;   ///< on the stream of a step, after its last collective

  std::vector<BucketizeSegment> bucketize_segments;
  PackingList packing;

  std::int64_t bytes() const;
};

/// Where the batches of an exchange come from: its buffers are of that stream.
enum class BatchSource { kNoneYet, kInputDist, kTaken };

struct EmbeddingExchange::State {
  EmbeddingInput::State input;
  BatchSource source = BatchSource::kNoneYet;
  Buffer<float> outputs, d_outputs;
  Buffer<float> unpooled;  ///< rows, or gradients, of the ids of unpooled lookups

  RowGroups groups;                      ///< of one shard after the other
  std::vector<RowGroups> column_groups;  ///< of the shards that are cut by columns
  std::vector<RowSquares> row_squares;   ///< [shards of this rank], of the column-cut ones
  Buffer<float> squares, squares_sent, squares_received;

  std::vector<LookupSegment> lookup_segments;
  std::vector<BagRows> bag_rows;
  std::vector<GradientSegment> gradient_segments;
};

}  // namespace serrate
