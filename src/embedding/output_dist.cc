// Pooled rows back to the ranks that have the bags, and gradients the same way in reverse.

#include "serrate/kernels/permute_bags.h"
#include "src/embedding/sharded_embedding_impl.h"

namespace serrate {
namespace {

void add_bag_rows(const Piece& piece, const PieceIds& ids, Messages& messages,
                  Buffer<float>& outputs, EmbeddingExchange::State& s) {
  const BatchLookup& lookup = s.lookups[piece.lookup];
  s.bag_rows.push_back(
      {lookup.parts.bag_index.span().subspan(lookup.bag_splits[piece.row_block], ids.num_bags),
       messages.piece_rows(ids, piece.num_columns()),
       s.matrix(outputs, piece.lookup).columns(piece.column_begin, piece.column_end),
       lookup.mean_scales.span()});
}

// What connects the rows of every piece with the bags of `outputs`, by lookup, row block and column
// block: an order that does not depend on which rank owns what.
void list_bag_rows(const Routing& routing, Buffer<float>& outputs, EmbeddingExchange::State& s) {
  s.bag_rows.clear();
  for (const std::int64_t i : routing.by_lookup) {
    add_bag_rows(routing.pieces[i], s.requested.pieces[i], s.requested, outputs, s);
  }
  for (std::size_t i = 0; i < routing.replicated.size(); ++i) {
    add_bag_rows(routing.replicated[i], s.replicated.pieces[i], s.replicated, outputs, s);
  }
}

}  // namespace

void ShardedEmbedding::output_dist(EmbeddingExchange& exchange, const Stream& stream) {
  Impl& m = *impl_;
  EmbeddingExchange::State& s = exchange.state();
  m.communicator.all_to_all<float>("output_dist", s.served.rows.span(), s.served.row_counts, 1,
                                   s.requested.rows, s.received_counts, stream);
  list_bag_rows(m.routing, s.outputs, s);
  fill_zero(s.outputs.span(), stream);
  scatter_bags(s.bag_rows, stream);
}

void ShardedEmbedding::output_dist_backward(EmbeddingExchange& exchange, const Stream& stream) {
  Impl& m = *impl_;
  EmbeddingExchange::State& s = exchange.state();
  list_bag_rows(m.routing, s.d_outputs, s);
  gather_bags(s.bag_rows, stream);
  m.communicator.all_to_all<float>("output_dist_backward", s.requested.rows.span(),
                                   s.requested.row_counts, 1, s.served.rows, s.received_counts,
                                   stream);
}

}  // namespace serrate
