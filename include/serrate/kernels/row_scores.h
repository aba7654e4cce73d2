#pragma once

#include <cstdint>

#include "serrate/device_span.h"
#include "serrate/stream.h"

namespace serrate {

enum class ScoreBy {
  kDotProduct,
  kCosine
};  ///< kCosine: rows on the unit sphere, queries as given

/// scores[q][r] = query q . row r. The bits of a score depend on the two alone, not on what else is
/// scored with them: it is one chain of multiply-adds in the order of columns. By cosine, rows have
/// at most 4,096 columns on a GPU.
struct RowScores {
  DeviceMatrix<const float> queries;  ///< [num_queries, dim]
  DeviceMatrix<const float> rows;     ///< [num_rows, dim]
  ScoreBy score_by = ScoreBy::kDotProduct;
  /// [num_queries, num_rows], with room for num_rows rounded up to kRowScoresRoom in each row.
  DeviceMatrix<float> scores;
};
inline constexpr std::int64_t kRowScoresRoom = 16;

void row_scores(const RowScores& args, const Stream& stream);

template <DeviceType D>
void row_scores_on(const RowScores&, const Stream&);

}  // namespace serrate
