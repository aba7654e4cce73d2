#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "serrate/buffer.h"
#include "src/embedding/batch_lookup.h"
#include "src/embedding/routing.h"

namespace serrate {

/// The first word of a message: what the sender's batch is. kNoIds goes with either of the next.
enum class MessageKind : std::int64_t { kFailed = -1, kNoIds = 0, kUnweighted = 1, kWeighted = 2 };

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

/// One batch's ids for the pieces that some ranks serve, one message per rank, and the rows (later
/// the gradients) of their bags. A message is, in words of 64 bits:
///   [kind]                     MessageKind
///   [bags, ids] x pieces       for each piece that the receiver serves
///   [offsets: bags + 1] ...    piece after piece, each from 0
///   [ids] ...                  piece after piece, as rows of the shard
/// or, from a rank whose batch is wrong, so that all ranks report the same error and none waits:
///   [kFailed, ErrorKind, number of bytes, the text padded to whole words]
/// Weights and rows are apart, in the order of the pieces' ids and bags.
struct Messages {
  std::vector<PieceIds> pieces;             ///< rank after rank
  std::vector<MessageKind> kinds;           ///< [ranks]
  std::vector<std::int64_t> word_counts;    ///< [ranks]
  std::vector<std::int64_t> weight_counts;  ///< [ranks]: ids, whether weighted or not
  std::vector<std::int64_t> row_counts;     ///< [ranks]: floats
  Buffer<std::int64_t> words;
  Buffer<float> weights;  ///< empty for an unweighted batch
  Buffer<float> rows;

  /// One message for each run of pieces [begins[i], begins[i + 1]).
  void pack(std::span<const Piece> all_pieces, std::span<const std::int64_t> begins,
            std::span<const BatchLookup> lookups, MessageKind kind, const Stream& stream);
  /// The error for each of num_ranks ranks.
  void pack_failure(const Error& error, int num_ranks, const Stream& stream);
  /// Reads the headers of `words`, received from word_counts.size() ranks that each sent `pieces`.
  /// Throws what a sender announced: the same error, of the lowest such rank, on every receiver.
  void read(std::span<const Piece> pieces_of_each, const Stream& stream);

  std::span<const std::int64_t> offsets(const PieceIds& p) const {
    return words.span().subspan(p.offsets_at, p.num_bags + 1);
  }
  std::span<const std::int64_t> ids(const PieceIds& p) const {
    return words.span().subspan(p.ids_at, p.num_ids);
  }
  std::span<const float> id_weights(const PieceIds& p) const {
    if (weights.size() == 0) return {};
    return weights.span().subspan(p.weights_at, p.num_ids);
  }
  MatrixView<float> piece_rows(const PieceIds& p, std::int64_t num_columns) {
    return {rows.data() + p.rows_at, p.num_bags, num_columns};
  }
  std::int64_t num_rows() const;  ///< floats
  std::int64_t bytes() const;

 private:
  void clear();
  void add(std::span<const Piece> pieces_of_rank, std::span<const PieceIds> counts,
           MessageKind kind);
  void pack_one(std::span<const Piece> pieces_of_rank, std::int64_t first_piece,
                std::int64_t first_word, std::span<const BatchLookup> lookups, MessageKind kind,
                const Stream& stream);
  [[noreturn]] void throw_failure(int rank, std::span<const std::int64_t> counts,
                                  const Stream& stream) const;

  std::vector<PieceIds> counts_;  // kept for their memory
  std::vector<std::int64_t> headers_;
};

}  // namespace serrate
