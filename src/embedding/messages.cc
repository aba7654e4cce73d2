#include "src/embedding/messages.h"

#include <numeric>

namespace serrate {
namespace {

std::int64_t sum(std::span<const std::int64_t> counts) {
  return std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
}

}  // namespace

void Messages::clear() {
  pieces.clear();
  word_counts.clear();
  weight_counts.clear();
  row_counts.clear();
}

void Messages::add(std::span<const Piece> pieces_of_rank, std::span<const BagCounts> counts) {
  const std::int64_t first_word = sum(word_counts);
  const std::int64_t first_weight = sum(weight_counts), first_row = sum(row_counts);
  const auto first_piece = std::ssize(pieces);
  std::int64_t word = first_word, weight = first_weight, row = first_row;
  for (const BagCounts& count : counts) {
    pieces.push_back({.num_bags = count.num_bags, .num_ids = count.num_ids, .offsets_at = word});
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
  word_counts.push_back(word - first_word);
  weight_counts.push_back(weight - first_weight);
  row_counts.push_back(row - first_row);
}

void Messages::resize(bool weighted, const Stream& stream) {
  words.resize_discard(sum(word_counts), stream);
  weights.resize_discard(weighted ? sum(weight_counts) : 0, stream);
}

DeviceSpan<float> Messages::resize_rows(const Stream& stream) {
  return rows.resize_discard(sum(row_counts), stream);
}

void Messages::pack(std::span<const Piece> all_pieces, std::span<const BatchLookup> lookups,
                    const PartedIds& parts, PackingList& list) {
  for (std::size_t i = 0; i < all_pieces.size(); ++i) {
    const PieceIds& p = pieces[i];
    const std::int64_t block = lookups[all_pieces[i].lookup].first_block + all_pieces[i].row_block;
    list.words.push_back(
        {parts.offsets(block), words.span().subspan(p.offsets_at, p.num_bags + 1)});
    list.words.push_back({parts.ids(block), words.span().subspan(p.ids_at, p.num_ids)});
    if (weights.size() == 0) continue;
    list.weights.push_back({parts.weights(block), weights.span().subspan(p.weights_at, p.num_ids)});
  }
}

}  // namespace serrate
