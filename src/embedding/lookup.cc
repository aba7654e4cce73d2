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
  Impl& m = *impl_;
  EmbeddingExchange::State& s = exchange.state();
  m.invalid_ids += std::exchange(s.input.num_invalid_ids, 0);
  s.outputs.resize_discard(s.input.output_size, stream);
  s.d_outputs.resize_discard(s.input.output_size, stream);
  s.unpooled.resize_discard(s.input.unpooled_size, stream);
  s.input.direct.served.resize_rows(stream);
  s.input.in_node.served.resize_rows(stream);
  s.input.replicated.resize_rows(stream);
  s.lookup_segments.clear();
  add_segments(m.routing.direct.served(), s.input.direct.served, m.shards, s.lookup_segments);
  add_segments(m.routing.in_node.served(), s.input.in_node.served, m.shards, s.lookup_segments);
  add_segments(m.routing.replicated, s.input.replicated, m.shards, s.lookup_segments);
  embedding_lookup(s.lookup_segments, stream);
}

}  // namespace serrate
