// Pooled rows back to the ranks that have the bags, and gradients the same way in reverse. What
// goes through nodes is added up in the owners' node: one row for each bag goes on to the bag's
// node, and one gradient for each bag comes back, to be copied to the owners of its rows there.

#include "serrate/kernels/permute_bags.h"
#include "src/embedding/sharded_embedding_impl.h"

namespace serrate {
namespace {

// What connects the rows of a piece with the bags of its lookup in `outputs`.
void add_bag_rows(const Piece& piece, const PieceIds& ids, Messages& messages,
                  const BatchLookup& lookup, Buffer<float>& outputs, std::vector<BagRows>& list) {
  list.push_back(
      {lookup.parts.bag_index.span().subspan(lookup.bag_splits[piece.row_block], ids.num_bags),
       messages.piece_rows(ids, piece.num_columns()),
       lookup.matrix(outputs).columns(piece.column_begin, piece.column_end),
       lookup.mean_scales.span()});
}

// By lookup, row block and column block: an order that does not depend on which rank owns what.
void add_bag_rows(const Hop& hop, Messages& requested, std::span<const BatchLookup> lookups,
                  Buffer<float>& outputs, std::vector<BagRows>& list) {
  for (const std::int64_t i : hop.by_lookup) {
    const Piece& piece = hop.pieces[i];
    add_bag_rows(piece, requested.pieces[i], requested, lookups[piece.lookup], outputs, list);
  }
}

void list_bag_rows(const Routing& routing, Buffer<float>& outputs, EmbeddingExchange::State& s) {
  s.bag_rows.clear();
  add_bag_rows(routing.direct, s.direct.requested, s.lookups, outputs, s.bag_rows);
  add_bag_rows(routing.to_node, s.to_node.requested, s.lookups, outputs, s.bag_rows);
  for (std::size_t i = 0; i < routing.replicated.size(); ++i) {
    const Piece& piece = routing.replicated[i];
    add_bag_rows(piece, s.replicated.pieces[i], s.replicated, s.lookups[piece.lookup], outputs,
                 s.bag_rows);
  }
}

void list_passed_on_rows(const Routing& routing, EmbeddingExchange::State& s) {
  s.bag_rows.clear();
  add_bag_rows(routing.in_node, s.in_node.requested, s.passed_on, s.to_node.served.rows,
               s.bag_rows);
}

void send_rows(const char* operation, Messages& from, Messages& to, EmbeddingExchange::State& s,
               Communicator& communicator, const Stream& stream) {
  communicator.all_to_all<float>(operation, from.rows.span(), from.row_counts, 1, to.rows,
                                 s.received_counts, stream);
}

}  // namespace

void ShardedEmbedding::output_dist(EmbeddingExchange& exchange, const Stream& stream) {
  Impl& m = *impl_;
  EmbeddingExchange::State& s = exchange.state();
  if (m.routing.through_nodes) {
    send_rows("output_dist_in_node", s.in_node.served, s.in_node.requested, s, *m.within_node,
              stream);
    fill_zero(s.to_node.served.rows.resize_discard(s.to_node.served.num_rows(), stream), stream);
    list_passed_on_rows(m.routing, s);
    scatter_bags(s.bag_rows, stream);
    send_rows("output_dist_from_node", s.to_node.served, s.to_node.requested, s, *m.across_nodes,
              stream);
  }
  if (!m.routing.direct.pieces.empty()) {
    send_rows("output_dist", s.direct.served, s.direct.requested, s, m.communicator, stream);
  }
  list_bag_rows(m.routing, s.outputs, s);
  fill_zero(s.outputs.span(), stream);
  scatter_bags(s.bag_rows, stream);
}

void ShardedEmbedding::output_dist_backward(EmbeddingExchange& exchange, const Stream& stream) {
  Impl& m = *impl_;
  EmbeddingExchange::State& s = exchange.state();
  list_bag_rows(m.routing, s.d_outputs, s);
  gather_bags(s.bag_rows, stream);
  if (!m.routing.direct.pieces.empty()) {
    send_rows("output_dist_backward", s.direct.requested, s.direct.served, s, m.communicator,
              stream);
  }
  if (m.routing.through_nodes) {
    send_rows("gradients_to_node", s.to_node.requested, s.to_node.served, s, *m.across_nodes,
              stream);
    list_passed_on_rows(m.routing, s);
    gather_bags(s.bag_rows, stream);
    send_rows("gradients_in_node", s.in_node.requested, s.in_node.served, s, *m.within_node,
              stream);
  }
}

}  // namespace serrate
