#pragma once

#include <vector>

#include "serrate/kernels/embedding_lookup.h"
#include "serrate/kernels/embedding_update.h"
#include "serrate/kernels/permute_bags.h"
#include "serrate/sharded_embedding.h"
#include "src/embedding/batch_lookup.h"
#include "src/embedding/messages.h"

namespace serrate {

/// A value for each row of a shard that has a gradient, in a buffer.
struct RowSquares {
  std::int64_t begin = 0;
  std::int64_t size = 0;
};

/// Buffers only grow, so a training loop allocates nothing after its largest batches.
struct EmbeddingExchange::State {
  std::vector<BatchLookup> lookups;
  Buffer<float> outputs, d_outputs;
  bool weighted = false;  ///< some rank's batch is

  Messages requested;   ///< by this rank, of the owners of sharded tables
  Messages served;      ///< by this rank, to every rank
  Messages replicated;  ///< this rank's own, of the data-parallel tables
  Messages gathered;    ///< every rank's `replicated`, for the update
  std::vector<std::int64_t> received_counts;

  RowGroups groups;                      ///< of one shard after the other
  std::vector<RowGroups> column_groups;  ///< of the shards that are cut by columns
  std::vector<RowSquares> row_squares;   ///< [shards of this rank], of the column-cut ones
  Buffer<float> squares, squares_sent, squares_received;

  std::vector<LookupSegment> lookup_segments;
  std::vector<BagRows> bag_rows;
  std::vector<GradientSegment> gradient_segments;

  MatrixView<float> matrix(Buffer<float>& buffer, std::int64_t lookup) {
    const BatchLookup& l = lookups.at(lookup);
    return {buffer.data() + l.output_at, l.num_bags, l.dim};
  }
};

}  // namespace serrate
