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

void list_bag_rows(const Routing& routing, Buffer<float>& outputs,
                   EmbeddingExchange::State& state) {
  const auto target_of = [&](std::int64_t lookup) -> Target {
    const BatchLookup& l = state.input.lookups[lookup];
    if (routing.lookups[lookup].unpooled) return {l.unpooled(state.unpooled), {}};
    return {l.matrix(outputs), l.mean_scales.span()};
  };
  const PartedLookups lookups{state.input.lookups, state.input.parts};
  state.bag_rows.clear();
  add_bag_rows(routing.direct, state.input.direct.requested, lookups, target_of, state.bag_rows);
  add_bag_rows(routing.to_node, state.input.to_node.requested, lookups, target_of, state.bag_rows);
  for (std::size_t i = 0; i < routing.replicated.size(); ++i) {
    const Piece& piece = routing.replicated[i];
    add_bag_rows(piece, state.input.replicated.pieces[i], state.input.replicated,
                 lookups.bag_index(piece), target_of(piece.lookup), state.bag_rows);
  }
}

void list_passed_on_rows(const Routing& routing, EmbeddingExchange::State& state) {
  const auto target_of = [&](std::int64_t lookup) -> Target {
    return {state.input.passed_on[lookup].matrix(state.input.to_node.served.rows), {}};
  };
  state.bag_rows.clear();
  add_bag_rows(routing.in_node, state.input.in_node.requested,
               {state.input.passed_on, state.input.passed_on_parts}, target_of, state.bag_rows);
}

// The outputs of the unpooled lookups.
void pool(const Routing& routing, EmbeddingExchange::State& state, const Stream& stream) {
  state.lookup_segments.clear();
  state.bag_rows.clear();
  for (std::size_t i = 0; i < state.input.lookups.size(); ++i) {
    if (!routing.lookups[i].unpooled) continue;
    const BatchLookup& l = state.input.lookups[i];
    const auto positions = std::as_const(state.input.positions).span();
    const DeviceMatrix<float> output = l.matrix(state.outputs);
    state.lookup_segments.push_back({l.unpooled(state.unpooled), positions.first(l.num_ids),
                                     l.bag_offsets.span(), l.id_weights.span(), output});
    if (l.mean_scales.size() == 0) continue;
    state.bag_rows.push_back({positions.first(l.num_bags), output, output, l.mean_scales.span()});
  }
  embedding_lookup(state.lookup_segments, stream);
  gather_bags(state.bag_rows, stream);  // in place: scales the sums
}

// The gradients of the ids of unpooled lookups, but for their weights.
void unpool_gradients(const Routing& routing, EmbeddingExchange::State& state,
                      const Stream& stream) {
  state.bag_rows.clear();
  for (std::size_t i = 0; i < state.input.lookups.size(); ++i) {
    if (!routing.lookups[i].unpooled) continue;
    const BatchLookup& l = state.input.lookups[i];
    state.bag_rows.push_back({l.bag_of_id.span(), l.unpooled(state.unpooled),
                              l.matrix(state.d_outputs), l.mean_scales.span()});
  }
  gather_bags(state.bag_rows, stream);
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
  Impl& impl = *impl_;
  EmbeddingExchange::State& state = exchange.state();
  if (impl.routing.through_nodes) {
    send_rows("output_dist_in_node", state.input.in_node.served, state.input.in_node.requested,
              *impl.within_node, stream);
    fill_zero(state.input.to_node.served.resize_rows(stream), stream);
    list_passed_on_rows(impl.routing, state);
    scatter_bags(state.bag_rows, stream);
    send_rows("output_dist_from_node", state.input.to_node.served, state.input.to_node.requested,
              *impl.across_nodes, stream);
  }
  if (!impl.routing.direct.pieces.empty()) {
    send_rows("output_dist", state.input.direct.served, state.input.direct.requested,
              impl.communicator, stream);
  }
  list_bag_rows(impl.routing, state.outputs, state);
  fill_zero(state.outputs.span(), stream);
  fill_zero(state.unpooled.span(), stream);
  scatter_bags(state.bag_rows, stream);
  pool(impl.routing, state, stream);
}

void ShardedEmbedding::output_dist_backward(EmbeddingExchange& exchange, const Stream& stream) {
  const ProfilerRange range("output_dist backward");
  Impl& impl = *impl_;
  EmbeddingExchange::State& state = exchange.state();
  unpool_gradients(impl.routing, state, stream);
  list_bag_rows(impl.routing, state.d_outputs, state);
  gather_bags(state.bag_rows, stream);
  if (!impl.routing.direct.pieces.empty()) {
    send_rows("output_dist_backward", state.input.direct.requested, state.input.direct.served,
              impl.communicator, stream);
  }
  if (impl.routing.through_nodes) {
    send_rows("gradients_to_node", state.input.to_node.requested, state.input.to_node.served,
              *impl.across_nodes, stream);
    list_passed_on_rows(impl.routing, state);
    gather_bags(state.bag_rows, stream);
    send_rows("gradients_in_node", state.input.in_node.requested, state.input.in_node.served,
              *impl.within_node, stream);
  }
}

}  // namespace serrate
