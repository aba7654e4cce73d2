// Ids to the owners of their rows.
//
// Every rank sends every rank one message (its layout is in messages.h), all lookups and shards in
// one all-to-all; weights, if any rank has them, follow in a second. How much there is of all, in
// these and in all exchanges of the batch that come after, is agreed before in one host collective
// (batch_counts.h), the only thing that waits for the device; ahead of the step, on a stream of its
// own, it waits while the device makes the step before. A rank whose batch is wrong announces the
// error there, and all ranks throw it when the batch's turn has come.
//
// A piece of a message has only the bags that have an id in its row block, so output_dist returns
// at most min(ids, bags x blocks) rows: for a row-wise table never more than either usual way,
// partial sums of all bags from every block, or unpooled rows. With SplitBags::kIdOrder, though, a
// table that is cut by rows gets every id as a bag of its own, and its bags are pooled here.
//
// Data-parallel tables have the same message, which stays on this rank until the update. What goes
// through nodes (see Routing) takes two more all-to-alls of such messages in groups of ranks: whole
// bags to the owners' node, parts of them to the owners.

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "serrate/kernels/bag_offsets.h"
#include "src/core/profiler_range.h"
#include "src/embedding/batch_counts.h"

namespace serrate {
namespace {

// 0, 1, ... size - 1.
DeviceSpan<const std::int64_t> positions(EmbeddingInput::State& state, std::int64_t size,
                                         const Stream& stream) {
  if (state.positions.size() < size) {
    std::vector<std::int64_t> values(size + size / 4);
    std::iota(values.begin(), values.end(), 0);
    state.positions = Buffer<std::int64_t>(values, stream);
  }
  return std::as_const(state.positions).span().first(size);
}

// Where the outputs will be, one after the other.
void lay_out_outputs(std::span<const JaggedView> bags, const ShardedEmbedding::Impl& impl,
                     EmbeddingInput::State& state, const Stream& stream) {
  std::int64_t output_at = 0, unpooled_at = 0, most_positions = 0;
  for (std::size_t i = 0; i < bags.size(); ++i) {
    BatchLookup& lookup = state.lookups[i];
    lookup.num_bags = bags[i].num_bags();
    lookup.dim = impl.tables[impl.routing.lookups[i].table].dim;
    lookup.output_at = output_at;
    output_at += lookup.num_bags * lookup.dim;
    if (!impl.routing.lookups[i].unpooled) continue;
    lookup.num_ids = bags[i].num_values();
    lookup.unpooled_at = unpooled_at;
    unpooled_at += lookup.num_ids * lookup.dim;
    most_positions = std::max({most_positions, lookup.num_ids + 1, lookup.num_bags});
  }
  state.output_size = output_at;
  state.unpooled_size = unpooled_at;
  positions(state, most_positions, stream);
}

// What pools the rows of unpooled lookups that come back: their bags, kept for after the batch.
void keep_bags(std::span<const JaggedView> bags, const Routing& routing,
               EmbeddingInput::State& state, const Stream& stream) {
  std::vector<CopyRun<std::int64_t>> offsets;
  std::vector<CopyRun<float>> weights;
  std::vector<BagsOfIds> bags_of;
  for (std::size_t i = 0; i < bags.size(); ++i) {
    if (!routing.lookups[i].unpooled) continue;
    BatchLookup& l = state.lookups[i];
    const auto own = l.bag_offsets.resize_discard(l.num_bags + 1, stream);
    offsets.push_back({bags[i].offsets, own});
    weights.push_back(
        {bags[i].weights, l.id_weights.resize_discard(std::ssize(bags[i].weights), stream)});
    bags_of.push_back({own, l.bag_of_id.resize_discard(l.num_ids, stream)});
  }
  copy_runs<std::int64_t>(offsets, stream);
  copy_runs<float>(weights, stream);
  bags_of_ids(bags_of, stream);
}

void scale_means(std::span<const JaggedView> bags, const ShardedEmbedding::Impl& impl,
                 EmbeddingInput::State& state, const Stream& stream) {
  std::vector<MeanScales> means;
  for (std::size_t i = 0; i < bags.size(); ++i) {
    const EmbeddingTable& table = impl.tables[impl.routing.lookups[i].table];
    if (table.pooling != PoolingType::kMean) continue;
    BatchLookup& l = state.lookups[i];
    means.push_back({bags[i].offsets, l.mean_scales.resize_discard(l.num_bags, stream)});
    if (impl.options.invalid_ids != InvalidIds::kDrop) continue;
    means.back().ids = bags[i].values;
    means.back().num_rows = table.num_rows;
  }
  mean_scales(means, stream);
}

// A segment for each lookup, then one more for those whose ids go through nodes, of which only the
// counts matter.
void list_segments(std::span<const JaggedView> bags, const Routing& routing,
                   EmbeddingInput::State& state, const Stream& stream) {
  state.bucketize_segments.clear();
  std::int64_t num_blocks = 0;
  const auto add = [&](std::size_t i, std::span<const std::int64_t> row_splits) {
    JaggedView view = bags[i];
    if (routing.lookups[i].unpooled)
      view.offsets = positions(state, state.lookups[i].num_ids + 1, stream);
    state.bucketize_segments.push_back({view, row_splits});
    const std::int64_t first = num_blocks;
    num_blocks += std::ssize(row_splits) - 1;
    return first;
  };
  for (std::size_t i = 0; i < bags.size(); ++i) {
    state.lookups[i].first_block = add(i, routing.lookups[i].row_splits);
  }
  for (std::size_t i = 0; i < bags.size(); ++i) {
    const std::vector<std::int64_t>& owner_splits = routing.lookups[i].owner_splits;
    if (!owner_splits.empty()) state.lookups[i].first_owner_block = add(i, owner_splits);
  }
}

Error invalid_id_error(const JaggedView& bags, std::int64_t position, const std::string& feature,
                       const EmbeddingTable& table, const Stream& stream) {
  std::int64_t id = 0;
  std::vector<std::int64_t> offsets(bags.offsets.size());
  copy_to_host(bags.values.subspan(position, 1), std::span(&id, 1), stream);
  copy_to_host(bags.offsets, std::span(offsets), stream);
  const auto end = std::upper_bound(offsets.begin(), offsets.end(), offsets[0] + position);
  const auto bag = end - offsets.begin() - 1;
  return usage_error(fmt::format(
      "feature \"{}\": sample (bag) {} has id {} at position {}, but table \"{}\" has {} rows "
      "(ids are 0 to {}): correct the data, enlarge the table, or drop such ids or send "
      "them to the last row (invalid ids: drop, oov)",
      feature, bag, id, offsets[0] + position - offsets[bag], table.name, table.num_rows,
      table.num_rows - 1));
}

// Throws Error (usage) for an id outside its table, or counts it, as the policy has it.
void check_ids(std::span<const JaggedView> bags, const BucketSizes& sizes,
               const ShardedEmbedding::Impl& impl, EmbeddingInput::State& state,
               const Stream& stream) {
  state.num_invalid_ids = 0;
  for (std::size_t i = 0; i < bags.size(); ++i) {
    if (sizes.first_outside[i] < 0) continue;
    if (impl.options.invalid_ids == InvalidIds::kError) {
      const LookupRoute& route = impl.routing.lookups[i];
      throw invalid_id_error(bags[i], sizes.first_outside[i], route.feature,
                             impl.tables[route.table], stream);
    }
    state.num_invalid_ids += sizes.num_outside[i];
  }
}

// Checks and parts the ids of every lookup.
void part_lookups(const KeyedJaggedTensor& features, const ShardedEmbedding::Impl& impl,
                  EmbeddingInput::State& state, const Stream& stream) {
  std::vector<JaggedView> bags;
  for (const LookupRoute& route : impl.routing.lookups) {
    bags.push_back(features.feature(features.index_of(route.feature)));
  }
  state.lookups.resize(bags.size());
  lay_out_outputs(bags, impl, state, stream);
  keep_bags(bags, impl.routing, state, stream);
  scale_means(bags, impl, state, stream);
  list_segments(bags, impl.routing, state, stream);
  const OutsideIds outside =
      impl.options.invalid_ids == InvalidIds::kOov ? OutsideIds::kLastRow : OutsideIds::kLeaveOut;
  check_ids(bags, state.parts.part(state.bucketize_segments, outside, stream), impl, state, stream);
}

BatchKind kind_of(const KeyedJaggedTensor& features) {
  if (features.weighted()) return BatchKind::kWeighted;
  return features.values().size() > 0 ? BatchKind::kUnweighted : BatchKind::kNoIds;
}

// Memory for the messages of a hop, and what packs those of this rank.
void pack(const Hop& hop, std::span<const BatchLookup> lookups, const PartedIds& parts,
          EmbeddingInput::State& state, HopMessages& messages, const Stream& stream) {
  messages.requested.resize(state.weighted, stream);
  messages.served.resize(state.weighted, stream);
  messages.requested.pack(hop.pieces, lookups, parts, state.packing);
}

// Queues the copies that were listed.
void finish_packing(PackingList& list, const Stream& stream) {
  copy_runs<std::int64_t>(list.words, stream);
  copy_runs<float>(list.weights, stream);
  list.words.clear();
  list.weights.clear();
}

struct Operations {
  const char *ids, *weights;
};

void send(Operations operations, HopMessages& messages, bool weighted, Communicator& communicator,
          const Stream& stream) {
  const Messages& from = messages.requested;
  Messages& to = messages.served;
  communicator.all_to_all<std::int64_t>(operations.ids, {from.words.span(), from.word_counts},
                                        {to.words.span(), to.word_counts}, 1, stream);
  if (!weighted) return;
  communicator.all_to_all<float>(operations.weights, {from.weights.span(), from.weight_counts},
                                 {to.weights.span(), to.weight_counts}, 1, stream);
}

// The bags that came to this rank, from the node of each lookup, parted for the ranks of its node.
void part_passed_on_ids(const Routing& routing, EmbeddingInput::State& state,
                        const Stream& stream) {
  const Messages& served = state.to_node.served;
  const std::span<const Piece> pieces = routing.to_node.served();
  const std::size_t num_nodes = served.num_ranks();
  state.passed_on.resize(served.pieces.size());
  state.bucketize_segments.clear();
  std::int64_t num_blocks = 0;
  for (std::size_t i = 0; i < state.passed_on.size(); ++i) {
    const std::size_t piece = i / num_nodes, node = i % num_nodes;
    const PieceIds& ids = served.pieces[node * pieces.size() + piece];
    BatchLookup& lookup = state.passed_on[i];
    lookup.num_bags = ids.num_bags;
    lookup.dim = pieces[piece].num_columns();
    lookup.output_at = ids.rows_at;
    lookup.first_block = num_blocks;
    num_blocks += std::ssize(routing.row_splits[piece]) - 1;
    state.bucketize_segments.push_back(
        {{served.ids(ids), served.offsets(ids), served.id_weights(ids)},
         routing.row_splits[piece]});
  }
  state.passed_on_parts.part(state.bucketize_segments, state.passed_on_counts, stream);
}

void record(Event& event, const Stream& stream) {
  if (event.device() != stream.device()) event = Event(stream.device());
  event.record(stream);
}

void wait_for(const Event& event, const Stream& stream) {
  if (event.device() == stream.device()) stream.wait_for(event);
}

void distribute(const KeyedJaggedTensor& features, ShardedEmbedding::Impl& impl,
                EmbeddingInput::State& state, const Stream& stream) {
  const ProfilerRange range("input_dist");
  const Routing& routing = impl.routing;
  BatchCounts counts;
  try {
    part_lookups(features, impl, state, stream);
    counts = counts_of_batch(impl, state, kind_of(features));
  } catch (const Error& error) {
    counts = counts_of_failure(error, impl.communicator.size());
  }
  exchange_counts(counts, impl, state);
  if (state.failure) return;
  if (routing.through_nodes) wait_for(state.may_be_sent, stream);

  pack(routing.direct, state.lookups, state.parts, state, state.direct, stream);
  pack(routing.to_node, state.lookups, state.parts, state, state.to_node, stream);
  state.replicated.resize(state.weighted, stream);
  state.replicated.pack(routing.replicated, state.lookups, state.parts, state.packing);
  finish_packing(state.packing, stream);
  if (!routing.direct.pieces.empty()) {
    send({"input_dist", "input_dist_weights"}, state.direct, state.weighted, impl.communicator,
         stream);
  }
  if (!routing.through_nodes) return;
  send({"ids_to_node", "weights_to_node"}, state.to_node, state.weighted, *impl.across_nodes,
       stream);
  part_passed_on_ids(routing, state, stream);
  pack(routing.in_node, state.passed_on, state.passed_on_parts, state, state.in_node, stream);
  finish_packing(state.packing, stream);
  send({"ids_in_node", "weights_in_node"}, state.in_node, state.weighted, *impl.within_node,
       stream);
}

// What a step needs alone stays with its exchange: a batch that waits has no rows.
void swap_rows(EmbeddingInput::State& a, EmbeddingInput::State& b) {
  for (const auto hop : {&EmbeddingInput::State::direct, &EmbeddingInput::State::to_node,
                         &EmbeddingInput::State::in_node}) {
    std::swap((a.*hop).requested.rows, (b.*hop).requested.rows);
    std::swap((a.*hop).served.rows, (b.*hop).served.rows);
  }
  std::swap(a.replicated.rows, b.replicated.rows);
  std::swap(a.gathered.rows, b.gathered.rows);
  std::swap(a.gathered.words, b.gathered.words);
  std::swap(a.gathered.weights, b.gathered.weights);
}

void set_source(EmbeddingExchange::State& exchange, BatchSource source) {
  check(
      exchange.source == BatchSource::kNoneYet || exchange.source == source,
      "an exchange gets its batches by input_dist or takes them from an EmbeddingInput, not both");
  exchange.source = source;
}

void check_is_free(const EmbeddingInput::State& ahead) {
  check(!ahead.waits, "the batch that was sent ahead is taken before the next one is sent");
}

}  // namespace

void ShardedEmbedding::input_dist(const KeyedJaggedTensor& features, EmbeddingExchange& exchange,
                                  const Stream& stream) {
  set_source(exchange.state(), BatchSource::kInputDist);
  EmbeddingInput::State& input = exchange.state().input;
  distribute(features, *impl_, input, stream);
  if (input.failure) throw Error(*input.failure);
}

void ShardedEmbedding::input_dist(const KeyedJaggedTensor& features, EmbeddingInput& ahead,
                                  const Stream& stream) {
  EmbeddingInput::State& state = ahead.state();
  check_is_free(state);
  wait_for(state.was_taken, stream);
  distribute(features, *impl_, state, stream);
  record(state.is_there, stream);
  state.waits = true;
}

void ShardedEmbedding::announce_failure(const Error& why, EmbeddingInput& ahead) {
  EmbeddingInput::State& state = ahead.state();
  check_is_free(state);
  const int num_ranks = impl_->communicator.size();
  exchange_counts(counts_of_failure(why, num_ranks), *impl_, state);
  if (num_ranks == 1) state.failure = why;  // there is no rank to name
  state.waits = true;
}

void EmbeddingInput::send_after(const Stream& stream) {
  record(state_->may_be_sent, stream);
}

std::optional<Error> EmbeddingInput::failure() const {
  return state_->waits ? state_->failure : std::nullopt;
}

void EmbeddingExchange::take(EmbeddingInput& ahead, const Stream& stream) {
  set_source(*state_, BatchSource::kTaken);
  check(std::exchange(ahead.state().waits, false), "input_dist comes before the step of its batch");
  EmbeddingInput::State& input = state_->input;
  record(input.was_taken, stream);
  std::swap(input, ahead.state());
  swap_rows(input, ahead.state());
  wait_for(input.is_there, stream);
  if (input.failure) throw Error(*input.failure);
}

}  // namespace serrate
