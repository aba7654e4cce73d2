// Gradients grouped by row and the optimizer applied, each row of a shard once, in the order of
// (lookup, rank, bag): that of the global batch, so that the world size does not matter.

#include "serrate/kernels/embedding_update.h"

#include <numeric>

#include "serrate/kernels/copy_runs.h"
#include "src/core/ordered_sum.h"
#include "src/core/profiler_range.h"
#include "src/embedding/init_weights.h"
#include "src/embedding/sharded_embedding_impl.h"

namespace serrate {
namespace {

// The other ranks' ids and gradients for the data-parallel tables: all ranks then make the same
// update, and no gradient of the size of a table is ever made.
void gather_replicated(ShardedEmbedding::Impl& impl, EmbeddingExchange::State& state,
                       const Stream& stream) {
  if (impl.routing.replicated.empty()) return;
  Messages& all = state.input.gathered;
  all.resize(state.input.weighted, stream);
  all.resize_rows(stream);
  impl.communicator.all_gather<std::int64_t>("data_parallel_ids",
                                             state.input.replicated.words.span(),
                                             {all.words.span(), all.word_counts}, 1, stream);
  if (state.input.weighted) {
    impl.communicator.all_gather<float>("data_parallel_weights",
                                        state.input.replicated.weights.span(),
                                        {all.weights.span(), all.weight_counts}, 1, stream);
  }
  impl.communicator.all_gather<float>("data_parallel_gradients", state.input.replicated.rows.span(),
                                      {all.rows.span(), all.row_counts}, 1, stream);
}

// Segments in order of lookups and ranks (through nodes: of lookups and nodes, then the ranks of a
// node, which is the same); they stay valid until the next call.
EmbeddingUpdate update_args(ShardedEmbedding::Impl& impl, EmbeddingExchange::State& state,
                            ShardStorage& shard, std::int64_t step) {
  Messages& messages = shard.place.way == Way::kReplicated ? state.input.gathered
                       : shard.place.way == Way::kDirect   ? state.input.direct.served
                                                           : state.input.in_node.served;
  const std::size_t pieces_per_rank = messages.pieces.size() / messages.num_ranks();
  state.gradient_segments.clear();
  for (const std::int64_t piece : shard.place.pieces) {
    for (std::size_t i = piece; i < messages.pieces.size(); i += pieces_per_rank) {
      const PieceIds& ids = messages.pieces[i];
      state.gradient_segments.push_back(
          {messages.ids(ids), messages.offsets(ids), messages.id_weights(ids),
           messages.piece_rows(ids, shard.place.shard.num_columns())});
    }
  }
  const Shard& part = shard.place.shard;
  return {.table = shard.weights(),
          .state = shard.state(),
          .second_moment = shard.second_moment(),
          .segments = state.gradient_segments,
          .optimizer = impl.options.optimizer,
          .step = step,
          .rounding = {.seed = impl.options.seed,
                       .table = random_stream(impl.tables[shard.place.table]),
                       .row_begin = part.row_begin,
                       .column_begin = part.column_begin}};
}

// The part of one shard in State::squares.
DeviceSpan<float> squares_of(EmbeddingExchange::State& state, const RowSquares& at) {
  return state.squares.span().subspan(at.begin, at.num_values * at.nodes.size());
}

// Groups the gradients of the column-cut shards and takes the squares of their own columns. Only
// the device knows where rows begin; the squares are there, and 0 elsewhere.
void local_row_squares(ShardedEmbedding::Impl& impl, EmbeddingExchange::State& state,
                       std::int64_t step, const Stream& stream) {
  state.column_groups.resize(impl.shards.size());
  state.row_squares.resize(impl.shards.size());
  std::int64_t total = 0;
  for (std::size_t i = 0; i < impl.shards.size(); ++i) {
    const ShardPlace& place = impl.shards[i].place;
    if (!place.column_cut) continue;
    const EmbeddingUpdate args = update_args(impl, state, impl.shards[i], step);
    group_gradients(args.segments, args.table.rows, state.column_groups[i], stream);
    RowSquares& squares = state.row_squares[i];
    squares.num_values = state.column_groups[i].num_occurrences;
    squares.nodes = tree_nodes({place.shard.column_begin, place.shard.column_end},
                               impl.tables[place.table].dim);
    squares.begin = total;
    total += squares.num_values * std::ssize(squares.nodes);
  }
  fill_zero(state.squares.resize_discard(total, stream), stream);
  for (std::size_t i = 0; i < impl.shards.size(); ++i) {
    const ShardPlace& place = impl.shards[i].place;
    if (!place.column_cut) continue;
    std::vector<ColumnRange> columns;
    for (const LeafRange& node : state.row_squares[i].nodes) {
      columns.push_back(
          {node.begin - place.shard.column_begin, node.end - place.shard.column_begin});
    }
    gradient_row_squares(update_args(impl, state, impl.shards[i], step), state.column_groups[i],
                         columns, squares_of(state, state.row_squares[i]), stream);
  }
}

// Every column block of a row block sends its sums of squares to every one, itself too: as many
// from each, as all have the ids of the same bags. Where each rank's begin is in `begins`.
void send_row_squares(ShardedEmbedding::Impl& impl, EmbeddingExchange::State& state,
                      std::vector<std::int64_t>& begins, const Stream& stream) {
  std::vector<std::int64_t> sent(impl.communicator.size(), 0), received = sent;
  std::int64_t total = 0;
  for (const ColumnPeer& to : impl.routing.columns_to) {
    const std::int64_t size = std::ssize(squares_of(state, state.row_squares[to.shard]));
    sent[to.rank] += size;
    total += size;
  }
  DeviceSpan<float> to_send = state.squares_sent.resize_discard(total, stream);
  std::vector<CopyRun<float>> copies;
  for (const ColumnPeer& to : impl.routing.columns_to) {
    const DeviceSpan<const float> own = squares_of(state, state.row_squares[to.shard]);
    copies.push_back({own, to_send.first(own.size())});
    to_send = to_send.subspan(own.size());
  }
  copy_runs<float>(copies, stream);
  for (const ColumnPeer& from : impl.routing.columns_from) {
    const std::int64_t dim = impl.tables[impl.shards[from.shard].place.table].dim;
    received[from.rank] +=
        state.row_squares[from.shard].num_values * std::ssize(tree_nodes(from.columns, dim));
  }
  begins.resize(received.size());
  std::exclusive_scan(received.begin(), received.end(), begins.begin(), std::int64_t{0});
  state.squares_received.resize_discard(begins.back() + received.back(), stream);
  impl.communicator.all_to_all<float>("row_squares", {state.squares_sent.span(), sent},
                                      {state.squares_received.span(), received}, 1, stream);
}

// Row-wise Adagrad needs the mean of g^2 over the whole row, and a column-cut shard has some of
// the columns. The owners of a row block's columns have the same rows in the same order, so each
// sends its sums of squares per row to all. They are of nodes of the tree over all columns, by
// which an uncut row is summed too: the cut changes no bit.
void exchange_row_squares(ShardedEmbedding::Impl& impl, EmbeddingExchange::State& state,
                          const Stream& stream) {
  std::vector<std::int64_t> begins;
  send_row_squares(impl, state, begins, stream);
  std::vector<LeafRange> nodes;  // of a row, as far as they have come
  std::vector<float*> terms;     // of each node, [num_values]
  for (const ColumnPeer& from : impl.routing.columns_from) {
    RowSquares& own = state.row_squares[from.shard];
    const std::int64_t dim = impl.tables[impl.shards[from.shard].place.table].dim;
    if (from.columns.begin == 0) {
      nodes.clear();
      terms.clear();
    }
    for (const LeafRange& node : tree_nodes(from.columns, dim)) {
      nodes.push_back(node);
      terms.push_back(state.squares_received.device_data() + begins[from.rank]);
      begins[from.rank] += own.num_values;
    }
    if (from.columns.end < dim) continue;
    std::vector<Addition<float>> additions;
    for (const auto [into, term] : tree_additions(nodes, dim)) {
      additions.push_back({terms[into], terms[term]});
    }
    add_in_order<float>(additions, own.num_values, stream);
    own.sums = {terms.front(), static_cast<std::size_t>(own.num_values)};
  }
}

}  // namespace

void ShardedEmbedding::update(EmbeddingExchange& exchange, std::int64_t step,
                              const Stream& stream) {
  const ProfilerRange range("embedding update");
  Impl& impl = *impl_;
  EmbeddingExchange::State& state = exchange.state();
  gather_replicated(impl, state, stream);
  const bool squares_needed = impl.options.optimizer.type == SparseOptimizer::kRowWiseAdagrad &&
                              impl.routing.any_column_cut;
  if (squares_needed) {
    local_row_squares(impl, state, step, stream);
    exchange_row_squares(impl, state, stream);
  }
  for (std::size_t i = 0; i < impl.shards.size(); ++i) {
    ShardStorage& shard = impl.shards[i];
    const EmbeddingUpdate args = update_args(impl, state, shard, step);
    if (squares_needed && shard.place.column_cut) {
      embedding_update(args, state.column_groups[i], state.row_squares[i].sums,
                       impl.tables[shard.place.table].dim, stream);
    } else {
      group_gradients(args.segments, args.table.rows, state.groups, stream);
      embedding_update(args, state.groups, {}, 0, stream);
    }
  }
}

}  // namespace serrate
