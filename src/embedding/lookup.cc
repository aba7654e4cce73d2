// Pooling on the owner, straight into what output_dist sends.

#include "serrate/kernels/embedding_lookup.h"

#include <utility>

#include "src/core/profiler_range.h"
#include "src/embedding/sharded_embedding_impl.h"

namespace serrate {
namespace {

// A segment for each piece and rank; all of a piece together, as they read the same table.
void add_segments(std::span<const Piece> pieces, Messages& messages,
                  std::vector<ShardStorage>& shards, std::vector<LookupSegment>& segments) {
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    for (std::size_t at = i; at < messages.pieces.size(); at += pieces.size()) {
      const PieceIds& ids = messages.pieces[at];
      const DeviceSpan<const float> weights = messages.id_weights(ids);
      segments.push_back({shards[pieces[i].shard].weights(), messages.ids(ids),
                          messages.offsets(ids),
                          pieces[i].unpooled ? DeviceSpan<const float>() : weights,
                          messages.piece_rows(ids, pieces[i].num_columns())});
    }
  }
}

}  // namespace

void ShardedEmbedding::lookup(EmbeddingExchange& exchange, const Stream& stream) {
  const ProfilerRange range("lookup");
  Impl& impl = *impl_;
  EmbeddingExchange::State& state = exchange.state();
  impl.invalid_ids += std::exchange(state.input.num_invalid_ids, 0);
  state.outputs.resize_discard(state.input.output_size, stream);
  state.d_outputs.resize_discard(state.input.output_size, stream);
  state.unpooled.resize_discard(state.input.unpooled_size, stream);
  state.input.direct.served.resize_rows(stream);
  state.input.in_node.served.resize_rows(stream);
  state.input.replicated.resize_rows(stream);
  state.lookup_segments.clear();
  add_segments(impl.routing.direct.served(), state.input.direct.served, impl.shards,
               state.lookup_segments);
  add_segments(impl.routing.in_node.served(), state.input.in_node.served, impl.shards,
               state.lookup_segments);
  add_segments(impl.routing.replicated, state.input.replicated, impl.shards, state.lookup_segments);
  embedding_lookup(state.lookup_segments, stream);
}

}  // namespace serrate
