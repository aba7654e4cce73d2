#include "src/embedding/messages.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <string>

#include "serrate/kernels/bag_offsets.h"

namespace serrate {
namespace {

constexpr std::int64_t kFailureWords = 3;  // before the text

std::int64_t sum(std::span<const std::int64_t> counts) {
  return std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
}

std::int64_t header_words(std::span<const Piece> pieces) {
  return 1 + 2 * std::ssize(pieces);
}

}  // namespace

void Messages::clear() {
  pieces.clear();
  kinds.clear();
  word_counts.clear();
  weight_counts.clear();
  row_counts.clear();
}

// The next rank's message; `counts` has the numbers of bags and ids, the rest is worked out here.
void Messages::add(std::span<const Piece> pieces_of_rank, std::span<const PieceIds> counts,
                   MessageKind kind) {
  const std::int64_t first_word = sum(word_counts);
  const std::int64_t first_weight = sum(weight_counts), first_row = sum(row_counts);
  const auto first_piece = std::ssize(pieces);
  std::int64_t word = first_word + header_words(pieces_of_rank);
  std::int64_t weight = first_weight, row = first_row;
  for (const PieceIds& count : counts) {
    pieces.push_back(count);
    pieces.back().offsets_at = word;
    word += count.num_bags + 1;
  }
  for (std::size_t i = 0; i < counts.size(); ++i) {
    PieceIds& p = pieces[first_piece + i];
    p.ids_at = word;
    p.weights_at = weight;
    p.rows_at = row;
    word += p.num_ids;
    weight += p.num_ids;
    row += p.num_bags * pieces_of_rank[i].num_columns();
  }
  kinds.push_back(kind);
  word_counts.push_back(word - first_word);
  weight_counts.push_back(weight - first_weight);
  row_counts.push_back(row - first_row);
}

void Messages::pack(std::span<const Piece> all_pieces, std::span<const std::int64_t> begins,
                    std::span<const BatchLookup> lookups, MessageKind kind, const Stream& stream) {
  const auto pieces_of = [&](std::size_t rank) {
    return all_pieces.subspan(begins[rank], begins[rank + 1] - begins[rank]);
  };
  const std::size_t num_ranks = begins.size() - 1;
  clear();
  for (std::size_t rank = 0; rank < num_ranks; ++rank) {
    counts_.clear();
    for (const Piece& piece : pieces_of(rank)) {
      const BucketizedIds& parts = lookups[piece.lookup].parts;
      PieceIds& count = counts_.emplace_back();
      count.num_bags = parts.bag_counts[piece.row_block];
      count.num_ids = parts.id_counts[piece.row_block];
    }
    add(pieces_of(rank), counts_, kind);
  }
  words.resize_discard(sum(word_counts), stream);
  weights.resize_discard(kind == MessageKind::kWeighted ? sum(weight_counts) : 0, stream);
  std::int64_t first_word = 0;
  for (std::size_t rank = 0; rank < num_ranks; ++rank) {
    pack_one(pieces_of(rank), begins[rank], first_word, lookups, kind, stream);
    first_word += word_counts[rank];
  }
}

void Messages::pack_one(std::span<const Piece> pieces_of_rank, std::int64_t first_piece,
                        std::int64_t first_word, std::span<const BatchLookup> lookups,
                        MessageKind kind, const Stream& stream) {
  headers_.assign(1, static_cast<std::int64_t>(kind));
  for (std::size_t i = 0; i < pieces_of_rank.size(); ++i) {
    const PieceIds& p = pieces[first_piece + i];
    const BatchLookup& lookup = lookups[pieces_of_rank[i].lookup];
    const std::int64_t bag = lookup.bag_splits[pieces_of_rank[i].row_block];
    const std::int64_t id = lookup.id_splits[pieces_of_rank[i].row_block];
    headers_.push_back(p.num_bags);
    headers_.push_back(p.num_ids);
    offsets_from_lengths(lookup.parts.lengths.span().subspan(bag, p.num_bags),
                         words.span().subspan(p.offsets_at, p.num_bags + 1), stream);
    copy(lookup.parts.ids.span().subspan(id, p.num_ids), words.span().subspan(p.ids_at, p.num_ids),
         stream);
    if (kind == MessageKind::kWeighted) {
      copy(lookup.parts.weights.span().subspan(id, p.num_ids),
           weights.span().subspan(p.weights_at, p.num_ids), stream);
    }
  }
  copy(headers_, words.span().subspan(first_word, headers_.size()), stream);
}

void Messages::pack_failure(const Error& error, int num_ranks, const Stream& stream) {
  constexpr std::size_t kWord = sizeof(std::int64_t);
  const std::string text = error.what();
  std::vector<std::int64_t> message(kFailureWords + (text.size() + kWord - 1) / kWord, 0);
  message[0] = static_cast<std::int64_t>(MessageKind::kFailed);
  message[1] = static_cast<std::int64_t>(error.kind());
  message[2] = std::ssize(text);
  std::memcpy(message.data() + kFailureWords, text.data(), text.size());
  clear();
  word_counts.assign(num_ranks, std::ssize(message));
  words.resize_discard(num_ranks * std::ssize(message), stream);
  for (int rank = 0; rank < num_ranks; ++rank) {
    copy(message, words.span().subspan(rank * message.size(), message.size()), stream);
  }
}

void Messages::throw_failure(int rank, std::span<const std::int64_t> counts,
                             const Stream& stream) const {
  std::vector<std::int64_t> message(counts[rank]);
  copy(words.span().subspan(sum(counts.first(rank)), message.size()), std::span(message), stream);
  stream.synchronize();
  const std::string text(reinterpret_cast<const char*>(message.data() + kFailureWords), message[2]);
  throw Error(fmt::format("rank {}: {}", rank, text), static_cast<ErrorKind>(message[1]));
}

void Messages::read(std::span<const Piece> pieces_of_each, const Stream& stream) {
  const std::vector<std::int64_t> received = word_counts;
  const int num_ranks = static_cast<int>(received.size());
  const std::int64_t header = header_words(pieces_of_each);
  headers_.assign(num_ranks * header, 0);
  std::int64_t first_word = 0;
  for (int rank = 0; rank < num_ranks; ++rank) {
    const std::int64_t size = std::min(header, received[rank]);
    serrate::copy(words.span().subspan(first_word, size),
                  std::span(headers_).subspan(rank * header, size), stream);
    first_word += received[rank];
  }
  stream.synchronize();
  clear();
  for (int rank = 0; rank < num_ranks; ++rank) {
    const auto words_of = std::span(headers_).subspan(rank * header, header);
    const auto kind = static_cast<MessageKind>(words_of[0]);
    if (kind == MessageKind::kFailed) throw_failure(rank, received, stream);
    counts_.resize(pieces_of_each.size());
    for (std::size_t i = 0; i < counts_.size(); ++i) {
      counts_[i].num_bags = words_of[1 + 2 * i];
      counts_[i].num_ids = words_of[2 + 2 * i];
    }
    add(pieces_of_each, counts_, kind);
    check(word_counts[rank] == received[rank], "a message is not as long as its header says");
  }
}

std::int64_t Messages::num_rows() const {
  return sum(row_counts);
}

std::int64_t Messages::bytes() const {
  return words.capacity() * std::int64_t{sizeof(std::int64_t)} +
         (weights.capacity() + rows.capacity()) * std::int64_t{sizeof(float)};
}

}  // namespace serrate
