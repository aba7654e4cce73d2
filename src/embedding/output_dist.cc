// Pooled rows back to the ranks that have the bags, and gradients the same way in reverse. What
// goes through nodes is added up in the owners' node: one row for each bag goes on to the bag's
// node, and one gradient for each bag comes back, to be copied to the owners of its rows there.
// The rows of unpooled lookups are of ids: they are pooled here, in the order of a bag's ids.

#include "serrate/kernels/permute_bags.h"
#include "src/core/profiler_range.h"
#include "src/embedding/sharded_embedding_impl.h"

namespace serrate {
namespace {

// What the rows of a lookup's pieces are for, and what each of those is to be multiplied by.
struct Target {
  DeviceMatrix<float> rows;
  DeviceSpan<const float> scales;
};

// What connects the rows of a piece with those of its lookup.
void add_bag_rows(const Piece& piece, const PieceIds& ids, Messages& messages,
                  DeviceSpan<const std::int64_t> bag_index, const Target& target,
                  std::vector<BagRows>& list) {
  list.push_back({bag_index, messages.piece_rows(ids, piece.num_columns()),
                  target.rows.columns(piece.column_begin, piece.column_end), target.scales});
}

// Lookups, and their ids by row block.
struct PartedLookups {
  std::span<const BatchLookup> lookups;
  const PartedIds& parts;

  DeviceSpan<const std::int64_t> bag_index(const Piece& piece) const {
    return parts.bag_index(lookups[piece.lookup].first_block + piece.row_block);
  }
};

// By lookup, row block and column block: an order that does not depend on which rank owns what.
template <typename TargetOf>
void add_bag_rows(const Hop& hop, Messages& requested, const PartedLookups& lookups,
                  const TargetOf& target_of, std::vector<BagRows>& list) {
  for (const std::int64_t i : hop.by_lookup) {
    const Piece& piece = hop.pieces[i];
    add_bag_rows(piece, requested.pieces[i], requested, lookups.bag_index(piece),
                 target_of(piece.lookup), list);
  }
}

void list_bag_rows(const Routing& routing, Buffer<float>& outputs, EmbeddingExchange::State& s) {
  const auto target_of = [&](std::int64_t lookup) -> Target {
    const BatchLookup& l = s.input.lookups[lookup];
    if (routing.lookups[lookup].unpooled) return {l.unpooled(s.unpooled), {}};
    return {l.matrix(outputs), l.mean_scales.span()};
  };
  const PartedLookups lookups{s.input.lookups, s.input.parts};
  s.bag_rows.clear();
  add_bag_rows(routing.direct, s.input.direct.requested, lookups, target_of, s.bag_rows);
  add_bag_rows(routing.to_node, s.input.to_node.requested, lookups, target_of, s.bag_rows);
  for (std::size_t i = 0; i < routing.replicated.size(); ++i) {
    const Piece& piece = routing.replicated[i];
    add_bag_rows(piece, s.input.replicated.pieces[i], s.input.replicated, lookups.bag_index(piece),
                 target_of(piece.lookup), s.bag_rows);
  }
}

void list_passed_on_rows(const Routing& routing, EmbeddingExchange::State& s) {
  const auto target_of = [&](std::int64_t lookup) -> Target {
    return {s.input.passed_on[lookup].matrix(s.input.to_node.served.rows), {}};
  };
  s.bag_rows.clear();
  add_bag_rows(routing.in_node, s.input.in_node.requested,
               {s.input.passed_on, s.input.passed_on_parts}, target_of, s.bag_rows);
}

// The outputs of the unpooled lookups.
void pool(const Routing& routing, EmbeddingExchange::State& s, const Stream& stream) {
  s.lookup_segments.clear();
  s.bag_rows.clear();
  for (std::size_t i = 0; i < s.input.lookups.size(); ++i) {
    if (!routing.lookups[i].unpooled) continue;
    const BatchLookup& l = s.input.lookups[i];
    const auto positions = std::as_const(s.input.positions).span();
    const DeviceMatrix<float> output = l.matrix(s.outputs);
    s.lookup_segments.push_back({l.unpooled(s.unpooled), positions.first(l.num_ids),
                                 l.bag_offsets.span(), l.id_weights.span(), output});
    if (l.mean_scales.size() == 0) continue;
    s.bag_rows.push_back({positions.first(l.num_bags), output, output, l.mean_scales.span()});
  }
  embedding_lookup(s.lookup_segments, stream);
  gather_bags(s.bag_rows, stream);  // in place: scales the sums
}

// The gradients of the ids of unpooled lookups, but for their weights.
void unpool_gradients(const Routing& routing, EmbeddingExchange::State& s, const Stream& stream) {
  s.bag_rows.clear();
  for (std::size_t i = 0; i < s.input.lookups.size(); ++i) {
    if (!routing.lookups[i].unpooled) continue;
    const BatchLookup& l = s.input.lookups[i];
    s.bag_rows.push_back(
        {l.bag_of_id.span(), l.unpooled(s.unpooled), l.matrix(s.d_outputs), l.mean_scales.span()});
  }
  gather_bags(s.bag_rows, stream);
}

void send_rows(const char* operation, Messages& from, Messages& to, Communicator& communicator,
               const Stream& stream) {
  to.resize_rows(stream);
  communicator.all_to_all<float>(operation, {from.rows.span(), from.row_counts},
                                 {to.rows.span(), to.row_counts}, 1, stream);
}

}  // namespace

void ShardedEmbedding::output_dist(EmbeddingExchange& exchange, const Stream& stream) {
  const ProfilerRange range("output_dist");
  Impl& m = *impl_;
  EmbeddingExchange::State& s = exchange.state();
  if (m.routing.through_nodes) {
    send_rows("output_dist_in_node", s.input.in_node.served, s.input.in_node.requested,
              *m.within_node, stream);
    fill_zero(s.input.to_node.served.resize_rows(stream), stream);
    list_passed_on_rows(m.routing, s);
    scatter_bags(s.bag_rows, stream);
    send_rows("output_dist_from_node", s.input.to_node.served, s.input.to_node.requested,
              *m.across_nodes, stream);
  }
  if (!m.routing.direct.pieces.empty()) {
    send_rows("output_dist", s.input.direct.served, s.input.direct.requested, m.communicator,
              stream);
  }
  list_bag_rows(m.routing, s.outputs, s);
  fill_zero(s.outputs.span(), stream);
  fill_zero(s.unpooled.span(), stream);
  scatter_bags(s.bag_rows, stream);
  pool(m.routing, s, stream);
}

void ShardedEmbedding::output_dist_backward(EmbeddingExchange& exchange, const Stream& stream) {
  const ProfilerRange range("output_dist backward");
  Impl& m = *impl_;
  EmbeddingExchange::State& s = exchange.state();
  unpool_gradients(m.routing, s, stream);
  list_bag_rows(m.routing, s.d_outputs, s);
  gather_bags(s.bag_rows, stream);
  if (!m.routing.direct.pieces.empty()) {
    send_rows("output_dist_backward", s.input.direct.requested, s.input.direct.served,
              m.communicator, stream);
  }
  if (m.routing.through_nodes) {
    send_rows("gradients_to_node", s.input.to_node.requested, s.input.to_node.served,
              *m.across_nodes, stream);
    list_passed_on_rows(m.routing, s);
    gather_bags(s.bag_rows, stream);
    send_rows("gradients_in_node", s.input.in_node.requested, s.input.in_node.served,
              *m.within_node, stream);
  }
}

}  // namespace serrate
