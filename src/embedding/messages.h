#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "serrate/buffer.h"
#include "serrate/kernels/copy_runs.h"
#include "src/embedding/batch_lookup.h"
#include "src/embedding/parted_ids.h"
#include "src/embedding/routing.h"

namespace serrate {

/// Where the ids of one piece are in a message, and the pooled rows that answer them: positions in
/// the words, weights and rows of Messages.
struct PieceIds {
  std::int64_t num_bags = 0;
  std::int64_t num_ids = 0;
  std::int64_t offsets_at = 0;  ///< num_bags + 1 words
  std::int64_t ids_at = 0;      ///< num_ids words
  std::int64_t weights_at = 0;  ///< num_ids
  std::int64_t rows_at = 0;     ///< num_bags rows of the piece's columns
};

/// What packs messages: copies that are queued together.
struct PackingList {
  std::vector<CopyRun<std::int64_t>> words;
  std::vector<CopyRun<float>> weights;
};

/// One batch's ids for the pieces that some ranks serve, one message per rank, and the rows (later
/// the gradients) of their bags. How many there are, both sides know before (batch_counts.h). A
/// message is, in words of 64 bits:
///   [offsets: bags + 1] ...    piece after piece, each from wherever the sender's stand
///   [ids] ...                  piece after piece, as rows of the shard
/// Weights and rows are apart, in the order of the pieces' ids and bags.
struct Messages {
  std::vector<PieceIds> pieces;             ///< rank after rank
  std::vector<std::int64_t> word_counts;    ///< [ranks]
  std::vector<std::int64_t> weight_counts;  ///< [ranks]: ids, whether weighted or not
  std::vector<std::int64_t> row_counts;     ///< [ranks]: floats
  Buffer<std::int64_t> words;
  Buffer<float> weights;  ///< empty for an unweighted batch
  Buffer<float> rows;

  /// Starts over with no rank.
  void clear();
  /// Lays out the next rank's message.
  void add(std::span<const Piece> pieces_of_rank, std::span<const BagCounts> counts);
  /// Memory for the words and, if weighted, the weights of the messages.
  void resize(bool weighted, const Stream& stream);
  /// Lists what the messages, of all_pieces, are to be filled with.
  void pack(std::span<const Piece> all_pieces, std::span<const BatchLookup> lookups,
            const PartedIds& parts, PackingList& list);
  DeviceSpan<float> resize_rows(const Stream& stream);

  DeviceSpan<const std::int64_t> offsets(const PieceIds& p) const {
    return words.span().subspan(p.offsets_at, p.num_bags + 1);
  }
  DeviceSpan<const std::int64_t> ids(const PieceIds& p) const {
    return words.span().subspan(p.ids_at, p.num_ids);
  }
  DeviceSpan<const float> id_weights(const PieceIds& p) const {
    if (weights.size() == 0) return {};
    return weights.span().subspan(p.weights_at, p.num_ids);
  }
  DeviceMatrix<float> piece_rows(const PieceIds& p, std::int64_t num_columns) {
    return {rows.device_data() + p.rows_at, p.num_bags, num_columns};
  }
  std::int64_t num_ranks() const { return std::ssize(word_counts); }
  std::int64_t bytes() const { return words.bytes() + weights.bytes() + rows.bytes(); }
};

}  // namespace serrate
