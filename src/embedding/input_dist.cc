// Ids to the owners of their rows.
//
// Every rank sends every rank one message (its layout is in messages.h), all lookups and shards in
// one all-to-all; weights, if any rank has them, follow in a second. Ids are checked before they
// leave: a rank with a bad batch sends the error instead, and all ranks throw it.
//
// A piece of a message has only the bags that have an id in its row block, so output_dist returns
// at most min(ids, bags x blocks) rows: for a row-wise table never more than either usual way,
// partial sums of all bags from every block, or unpooled rows. With SplitBags::kIdOrder, though, a
// table that is cut by rows gets every id as a bag of its own, and its bags are pooled here.
//
// Data-parallel tables have the same message, which stays on this rank until the update. What goes
// through nodes (see Routing) takes two more all-to-alls of such messages in groups of ranks, once
// it is known that all batches are good: whole bags to the owners' node, parts of them to the
// owners.

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <numeric>

#include "serrate/kernels/bag_offsets.h"
#include "serrate/kernels/bucketize.h"
#include "src/embedding/check_ids.h"
#include "src/embedding/sharded_embedding_impl.h"

namespace serrate {
namespace {

void prefix_sums(const std::vector<std::int64_t>& counts, std::vector<std::int64_t>& splits) {
  splits.assign(counts.size() + 1, 0);
  std::partial_sum(counts.begin(), counts.end(), splits.begin() + 1);
}

void part_ids(const JaggedView& bags, std::span<const std::int64_t> row_splits, BatchLookup& lookup,
              const Stream& stream) {
  lookup.num_bags = bags.num_bags();
  bucketize(bags, row_splits, lookup.parts, stream);
  prefix_sums(lookup.parts.bag_counts, lookup.bag_splits);
  prefix_sums(lookup.parts.id_counts, lookup.id_splits);
}

// 0, 1, ... size - 1.
std::span<const std::int64_t> positions(EmbeddingExchange::State& s, std::int64_t size,
                                        const Stream& stream) {
  if (s.positions.size() < size) {
    std::vector<std::int64_t> values(size + size / 4);
    std::iota(values.begin(), values.end(), 0);
    s.positions = Buffer<std::int64_t>(values, stream);
  }
  return std::as_const(s.positions).span().first(size);
}

// As part_ids, with a bag for each id; keeps the bags to pool the rows that come back.
void part_ids_unpooled(const JaggedView& bags, std::span<const std::int64_t> row_splits,
                       EmbeddingExchange::State& s, BatchLookup& lookup, const Stream& stream) {
  const std::int64_t num_ids = bags.num_values();
  part_ids({bags.values, positions(s, num_ids + 1, stream), bags.weights}, row_splits, lookup,
           stream);
  lookup.num_ids = num_ids;
  lookup.num_bags = bags.num_bags();
  const auto offsets = lookup.bag_offsets.resize_discard(lookup.num_bags + 1, stream);
  copy(DeviceSpan<const std::int64_t>(bags.offsets), offsets, stream);
  bags_of_ids(offsets, lookup.bag_of_id.resize_discard(num_ids, stream), stream);
  copy(DeviceSpan<const float>(bags.weights),
       lookup.id_weights.resize_discard(std::ssize(bags.weights), stream), stream);
  positions(s, lookup.num_bags, stream);  // for the means
}

// Checks and parts the ids of every lookup, and lays the outputs out one after the other.
void bucketize_lookups(const KeyedJaggedTensor& features, ShardedEmbedding::Impl& m,
                       EmbeddingExchange::State& s, const Stream& stream) {
  s.lookups.resize(m.lookups.size());
  std::int64_t output_at = 0, unpooled_at = 0;
  for (std::size_t i = 0; i < s.lookups.size(); ++i) {
    const LookupRoute& route = m.routing.lookups[i];
    const EmbeddingTable& table = m.tables[route.table];
    BatchLookup& lookup = s.lookups[i];
    const JaggedView bags =
        check_ids(features.feature(features.index_of(route.feature)), route.feature, table,
                  m.options.invalid_ids, lookup.valid, m.invalid_ids, stream);
    if (route.unpooled) {
      part_ids_unpooled(bags, route.row_splits, s, lookup, stream);
      lookup.unpooled_at = unpooled_at;
      unpooled_at += lookup.num_ids * table.dim;
    } else {
      part_ids(bags, route.row_splits, lookup, stream);
    }
    lookup.dim = table.dim;
    lookup.output_at = output_at;
    output_at += lookup.num_bags * lookup.dim;
    if (table.pooling == PoolingType::kMean) {
      mean_scales(bags.offsets, lookup.mean_scales.resize_discard(lookup.num_bags, stream), stream);
    }
  }
  s.unpooled.resize_discard(unpooled_at, stream);
  s.outputs.resize_discard(output_at, stream);
  s.d_outputs.resize_discard(output_at, stream);
}

MessageKind kind_of(const KeyedJaggedTensor& features) {
  if (features.weighted()) return MessageKind::kWeighted;
  return features.values().size() > 0 ? MessageKind::kUnweighted : MessageKind::kNoIds;
}

// Whether any rank's batch has weights; an error on every rank if another's has ids without.
bool any_weighted(const std::vector<MessageKind>& kinds) {
  const auto weighted = std::find(kinds.begin(), kinds.end(), MessageKind::kWeighted);
  const auto unweighted = std::find(kinds.begin(), kinds.end(), MessageKind::kUnweighted);
  if (weighted != kinds.end() && unweighted != kinds.end()) {
    throw usage_error(fmt::format(
        "the batch of rank {} has weights and that of rank {} has none (all or none have to)",
        weighted - kinds.begin(), unweighted - kinds.begin()));
  }
  return weighted != kinds.end();
}

void send_ids(const char* operation, const Hop& hop, HopMessages& messages,
              Communicator& communicator, const Stream& stream) {
  communicator.all_to_all<std::int64_t>(operation, messages.requested.words.span(),
                                        messages.requested.word_counts, 1, messages.served.words,
                                        messages.served.word_counts, stream);
  messages.served.read(hop.served(), stream);
  messages.served.weights.resize_discard(0, stream);
}

void send_weights(const char* operation, HopMessages& messages, EmbeddingExchange::State& s,
                  Communicator& communicator, const Stream& stream) {
  if (!s.weighted) return;
  communicator.all_to_all<float>(operation, messages.requested.weights.span(),
                                 messages.requested.weight_counts, 1, messages.served.weights,
                                 s.received_counts, stream);
}

// The bags that came to this rank, from the node of each lookup, parted for the ranks of its node.
void part_passed_on_ids(const Routing& routing, EmbeddingExchange::State& s, const Stream& stream) {
  const Messages& came = s.to_node.served;
  const std::span<const Piece> pieces = routing.to_node.served();
  const std::size_t num_nodes = came.kinds.size();
  s.passed_on.resize(came.pieces.size());
  for (std::size_t i = 0; i < s.passed_on.size(); ++i) {
    const std::size_t piece = i / num_nodes, node = i % num_nodes;
    const PieceIds& ids = came.pieces[node * pieces.size() + piece];
    BatchLookup& lookup = s.passed_on[i];
    part_ids({came.ids(ids), came.offsets(ids), came.id_weights(ids)}, routing.row_splits[piece],
             lookup, stream);
    lookup.dim = pieces[piece].num_columns();
    lookup.output_at = ids.rows_at;
  }
}

}  // namespace

void ShardedEmbedding::input_dist(const KeyedJaggedTensor& features, EmbeddingExchange& exchange,
                                  const Stream& stream) {
  Impl& m = *impl_;
  const Routing& routing = m.routing;
  EmbeddingExchange::State& s = exchange.state();
  const auto pack = [&](const Hop& hop, std::span<const BatchLookup> lookups, MessageKind kind,
                        Messages& requested) {
    requested.pack(hop.pieces, hop.rank_begin, lookups, kind, stream);
  };
  try {
    bucketize_lookups(features, m, s, stream);
    const std::array<std::int64_t, 2> all{0, std::ssize(routing.replicated)};
    const MessageKind kind = kind_of(features);
    pack(routing.direct, s.lookups, kind, s.direct.requested);
    pack(routing.to_node, s.lookups, kind, s.to_node.requested);
    s.replicated.pack(routing.replicated, all, s.lookups, kind, stream);
  } catch (const Error& error) {
    s.direct.requested.pack_failure(error, m.communicator.size(), stream);
  }
  send_ids("input_dist", routing.direct, s.direct, m.communicator, stream);
  s.weighted = any_weighted(s.direct.served.kinds);
  send_weights("input_dist_weights", s.direct, s, m.communicator, stream);
  if (!routing.through_nodes) return;
  send_ids("ids_to_node", routing.to_node, s.to_node, *m.across_nodes, stream);
  send_weights("weights_to_node", s.to_node, s, *m.across_nodes, stream);
  part_passed_on_ids(routing, s, stream);
  pack(routing.in_node, s.passed_on, s.weighted ? MessageKind::kWeighted : MessageKind::kUnweighted,
       s.in_node.requested);
  send_ids("ids_in_node", routing.in_node, s.in_node, *m.within_node, stream);
  send_weights("weights_in_node", s.in_node, s, *m.within_node, stream);
}

}  // namespace serrate
