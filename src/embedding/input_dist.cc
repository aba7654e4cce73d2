// Ids to the owners of their rows.
//
// Every rank sends every rank one message (its layout is in messages.h), all lookups and shards in
// one all-to-all; weights, if any rank has them, follow in a second. Ids are checked before they
// leave: a rank with a bad batch sends the error instead, and all ranks throw it.
//
// A piece of a message has only the bags that have an id in its row block, so output_dist returns
// at most min(ids, bags x blocks) rows: for a row-wise table never more than either usual way,
// partial sums of all bags from every block, or unpooled rows.
//
// Data-parallel tables have the same message, which stays on this rank until the update.

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

// Checks and parts the ids of every lookup, and lays the outputs out one after the other.
void bucketize_lookups(const KeyedJaggedTensor& features, ShardedEmbedding::Impl& m,
                       EmbeddingExchange::State& s, const Stream& stream) {
  s.lookups.resize(m.lookups.size());
  std::int64_t output_at = 0;
  for (std::size_t i = 0; i < s.lookups.size(); ++i) {
    const LookupRoute& route = m.routing.lookups[i];
    const EmbeddingTable& table = m.tables[route.table];
    BatchLookup& lookup = s.lookups[i];
    const JaggedView bags =
        check_ids(features.feature(features.index_of(route.feature)), route.feature, table,
                  m.options.invalid_ids, lookup.valid, m.invalid_ids, stream);
    lookup.num_bags = bags.num_bags();
    lookup.dim = table.dim;
    lookup.output_at = output_at;
    output_at += lookup.num_bags * lookup.dim;
    bucketize(bags, route.row_splits, lookup.parts, stream);
    prefix_sums(lookup.parts.bag_counts, lookup.bag_splits);
    prefix_sums(lookup.parts.id_counts, lookup.id_splits);
    if (table.pooling == PoolingType::kMean) {
      mean_scales(bags.offsets, lookup.mean_scales.resize_discard(lookup.num_bags, stream), stream);
    }
  }
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

}  // namespace

void ShardedEmbedding::input_dist(const KeyedJaggedTensor& features, EmbeddingExchange& exchange,
                                  const Stream& stream) {
  Impl& m = *impl_;
  EmbeddingExchange::State& s = exchange.state();
  try {
    bucketize_lookups(features, m, s, stream);
    const std::array<std::int64_t, 2> all{0, std::ssize(m.routing.replicated)};
    const MessageKind kind = kind_of(features);
    s.requested.pack(m.routing.pieces, m.routing.rank_begin, s.lookups, kind, stream);
    s.replicated.pack(m.routing.replicated, all, s.lookups, kind, stream);
  } catch (const Error& error) {
    s.requested.pack_failure(error, m.communicator.size(), stream);
  }
  m.communicator.all_to_all<std::int64_t>("input_dist", s.requested.words.span(),
                                          s.requested.word_counts, 1, s.served.words,
                                          s.served.word_counts, stream);
  s.served.read(m.routing.served_by(m.communicator.rank()), stream);
  s.weighted = any_weighted(s.served.kinds);
  s.served.weights.resize_discard(0, stream);
  if (s.weighted) {
    m.communicator.all_to_all<float>("input_dist_weights", s.requested.weights.span(),
                                     s.requested.weight_counts, 1, s.served.weights,
                                     s.received_counts, stream);
  }
}

}  // namespace serrate
