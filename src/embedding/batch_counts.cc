#include "src/embedding/batch_counts.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <string>

namespace serrate {
namespace {

constexpr std::int64_t kFailureWords = 3;  // before the text

class Writer {
 public:
  explicit Writer(std::vector<std::int64_t>& words) : words_(words) {}
  void add(BagCounts count) { words_.insert(words_.end(), {count.num_bags, count.num_ids}); }

 private:
  std::vector<std::int64_t>& words_;
};

class Reader {
 public:
  explicit Reader(std::span<const std::int64_t> words) : words_(words) {}
  BagCounts next() {
    check(next_ + 2 <= words_.size(), "a rank told fewer counts than the plan has pieces");
    next_ += 2;
    return {words_[next_ - 2], words_[next_ - 1]};
  }
  void next(std::size_t count, std::vector<BagCounts>& into) {
    for (std::size_t i = 0; i < count; ++i) into.push_back(next());
  }
  void check_end() const {
    check(next_ == words_.size(), "a rank told more counts than the plan has pieces");
  }

 private:
  std::span<const std::int64_t> words_;
  std::size_t next_ = 1;  // behind the kind
};

Error failure_of(int rank, std::span<const std::int64_t> message) {
  const std::string text(reinterpret_cast<const char*>(message.data() + kFailureWords), message[2]);
  return Error(fmt::format("rank {}: {}", rank, text), static_cast<ErrorKind>(message[1]));
}

// Whether any rank's batch has weights; a failure if another's has ids without.
void set_weighted(const std::vector<BatchKind>& kinds, EmbeddingInput::State& state) {
  const auto weighted = std::ranges::find(kinds, BatchKind::kWeighted);
  const auto unweighted = std::ranges::find(kinds, BatchKind::kUnweighted);
  state.weighted = weighted != kinds.end();
  if (state.weighted && unweighted != kinds.end()) {
    state.failure = usage_error(fmt::format(
        "the batch of rank {} has weights and that of rank {} has none (all or none have to)",
        weighted - kinds.begin(), unweighted - kinds.begin()));
  }
}

BagCounts count_of(const Piece& piece, const EmbeddingInput::State& state) {
  return state.parts.count(state.lookups[piece.lookup].first_block + piece.row_block);
}

// What `rank` has to know of what goes through nodes.
void write_through_nodes(const Routing& routing, const EmbeddingInput::State& state, int rank,
                         Writer& to) {
  const int num_in_node = static_cast<int>(std::ssize(routing.in_node.rank_begin)) - 1;
  const int node = rank / num_in_node, in_node = rank % num_in_node;
  const Hop& hop = routing.to_node;
  for (std::int64_t i = hop.rank_begin[node]; i < hop.rank_begin[node + 1]; ++i) {
    const std::vector<int>& owners = routing.row_owners[i];
    const auto part = [&](std::size_t row) {
      return state.parts.count(state.lookups[hop.pieces[i].lookup].first_owner_block +
                               static_cast<std::int64_t>(row));
    };
    if (in_node == routing.in_node.rank) {
      to.add(count_of(hop.pieces[i], state));
      for (std::size_t row = 0; row < owners.size(); ++row) to.add(part(row));
    }
    for (std::size_t row = 0; row < owners.size(); ++row) {
      if (owners[row] == in_node) to.add(part(row));
    }
  }
}

// What the ranks of all nodes send through this rank's node.
struct ThroughNodeCounts {
  std::vector<std::vector<BagCounts>> whole;      // [nodes]: to_node.served()
  std::vector<std::vector<BagCounts>> passed_on;  // [lookups of in_node]: by row block
  std::vector<std::vector<BagCounts>> owned;      // [ranks of the node]: in_node.served()
};

void read_through_nodes(const Routing& routing, int rank, Reader& from, ThroughNodeCounts& counts) {
  const std::size_t num_nodes = counts.whole.size(), num_in_node = counts.owned.size();
  const std::size_t node = rank / num_in_node, in_node = rank % num_in_node;
  const std::span<const Piece> served = routing.in_node.served();
  const std::size_t first_piece = routing.to_node.rank_begin[routing.to_node.rank];
  std::size_t owned = 0;  // the next piece of in_node.served() that is of the sender's node
  const auto skip_other_nodes = [&] {
    while (owned < served.size() && served[owned].lookup % num_nodes != node) ++owned;
  };
  for (std::size_t i = 0; i < routing.to_node.served().size(); ++i) {
    const std::vector<int>& owners = routing.row_owners[first_piece + i];
    if (static_cast<int>(in_node) == routing.in_node.rank) {
      counts.whole[node].push_back(from.next());
      from.next(owners.size(), counts.passed_on[i * num_nodes + node]);
    }
    for (const int owner : owners) {
      if (owner != routing.in_node.rank) continue;
      skip_other_nodes();
      counts.owned[in_node][owned++] = from.next();
    }
  }
}

void lay_out_requested(const Hop& hop, Messages& requested, const auto& count_of_piece) {
  requested.clear();
  std::vector<BagCounts> counts;
  for (std::size_t rank = 0; rank + 1 < hop.rank_begin.size(); ++rank) {
    const auto pieces =
        std::span(hop.pieces)
            .subspan(hop.rank_begin[rank], hop.rank_begin[rank + 1] - hop.rank_begin[rank]);
    counts.clear();
    for (const Piece& piece : pieces) counts.push_back(count_of_piece(piece));
    requested.add(pieces, counts);
  }
}

void lay_out_through_nodes(const Routing& routing, const ThroughNodeCounts& counts,
                           EmbeddingInput::State& state) {
  const auto own = [&](const Piece& piece) { return count_of(piece, state); };
  lay_out_requested(routing.to_node, state.to_node.requested, own);
  state.to_node.served.clear();
  for (const auto& of_node : counts.whole)
    state.to_node.served.add(routing.to_node.served(), of_node);
  const auto passed_on = [&](const Piece& piece) {
    return counts.passed_on[piece.lookup][piece.row_block];
  };
  lay_out_requested(routing.in_node, state.in_node.requested, passed_on);
  state.in_node.served.clear();
  for (const auto& of_rank : counts.owned)
    state.in_node.served.add(routing.in_node.served(), of_rank);
  state.passed_on_counts.clear();
  for (const auto& blocks : counts.passed_on) {
    state.passed_on_counts.insert(state.passed_on_counts.end(), blocks.begin(), blocks.end());
  }
}

// The messages among all ranks, and those of the replicas, as they are told by one after another.
void read_direct(const Routing& routing, Reader& from, EmbeddingInput::State& state) {
  std::vector<BagCounts> counts;
  from.next(routing.direct.served().size(), counts);
  state.direct.served.add(routing.direct.served(), counts);
  counts.clear();
  from.next(routing.replicated.size(), counts);
  state.gathered.add(routing.replicated, counts);
}

void lay_out_own(const Routing& routing, EmbeddingInput::State& state) {
  const auto own = [&](const Piece& piece) { return count_of(piece, state); };
  lay_out_requested(routing.direct, state.direct.requested, own);
  std::vector<BagCounts> counts;
  for (const Piece& piece : routing.replicated) counts.push_back(own(piece));
  state.replicated.clear();
  state.replicated.add(routing.replicated, counts);
}

}  // namespace

BatchCounts counts_of_batch(const ShardedEmbedding::Impl& impl, const EmbeddingInput::State& state,
                            BatchKind kind) {
  const Routing& routing = impl.routing;
  const Hop& direct = routing.direct;
  BatchCounts result;
  Writer to(result.words);
  for (int rank = 0; rank < impl.communicator.size(); ++rank) {
    const auto first_word = std::ssize(result.words);
    result.words.push_back(static_cast<std::int64_t>(kind));
    for (std::int64_t i = direct.rank_begin[rank]; i < direct.rank_begin[rank + 1]; ++i) {
      to.add(count_of(direct.pieces[i], state));
    }
    for (const Piece& piece : routing.replicated) to.add(count_of(piece, state));
    if (routing.through_nodes) write_through_nodes(routing, state, rank, to);
    result.word_counts.push_back(std::ssize(result.words) - first_word);
  }
  return result;
}

BatchCounts counts_of_failure(const Error& error, int num_ranks) {
  constexpr std::size_t kWord = sizeof(std::int64_t);
  const std::string text = error.what();
  std::vector<std::int64_t> message(kFailureWords + (text.size() + kWord - 1) / kWord, 0);
  message[0] = static_cast<std::int64_t>(BatchKind::kFailed);
  message[1] = static_cast<std::int64_t>(error.kind());
  message[2] = std::ssize(text);
  std::memcpy(message.data() + kFailureWords, text.data(), text.size());
  BatchCounts result;
  for (int rank = 0; rank < num_ranks; ++rank) {
    result.words.insert(result.words.end(), message.begin(), message.end());
    result.word_counts.push_back(std::ssize(message));
  }
  return result;
}

void exchange_counts(const BatchCounts& own, ShardedEmbedding::Impl& impl,
                     EmbeddingInput::State& state) {
  const Routing& routing = impl.routing;
  const FromRanks<std::int64_t> received =
      impl.communicator.exchange<std::int64_t>("input_dist_counts", own.words, own.word_counts);
  std::vector<BatchKind> kinds;
  ThroughNodeCounts through_nodes;
  if (routing.through_nodes) {
    const std::size_t num_nodes = routing.to_node.rank_begin.size() - 1;
    const std::size_t num_in_node = routing.in_node.rank_begin.size() - 1;
    through_nodes.whole.resize(num_nodes);
    through_nodes.passed_on.resize(routing.to_node.served().size() * num_nodes);
    through_nodes.owned.assign(num_in_node,
                               std::vector<BagCounts>(routing.in_node.served().size()));
  }
  state.failure.reset();
  state.direct.served.clear();
  state.gathered.clear();
  std::span<const std::int64_t> rest = received.values;
  for (int rank = 0; rank < impl.communicator.size(); ++rank) {
    const std::span<const std::int64_t> message = rest.first(received.counts[rank]);
    rest = rest.subspan(message.size());
    kinds.push_back(static_cast<BatchKind>(message[0]));
    if (kinds.back() == BatchKind::kFailed) {
      state.failure = failure_of(rank, message);
      return;
    }
    Reader from(message);
    read_direct(routing, from, state);
    if (routing.through_nodes) read_through_nodes(routing, rank, from, through_nodes);
    from.check_end();
  }
  set_weighted(kinds, state);
  lay_out_own(routing, state);
  if (routing.through_nodes) lay_out_through_nodes(routing, through_nodes, state);
}

}  // namespace serrate
