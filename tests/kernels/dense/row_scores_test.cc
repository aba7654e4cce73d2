#include "serrate/kernels/row_scores.h"

#include <cmath>
#include <cstring>

#include "serrate/error.h"
#include "tests/kernels/host_matrix.h"

namespace serrate {
namespace {

/// Scores [queries, rows], without the room behind each row of them.
std::vector<float> scores_of(MatrixView<const float> queries, MatrixView<const float> rows,
                             ScoreBy score_by, int num_threads = 1) {
  const std::int64_t stride = (rows.rows + kRowScoresRoom - 1) / kRowScoresRoom * kRowScoresRoom;
  std::vector<float> padded(queries.rows * stride), scores;
  row_scores({queries, rows, score_by, {padded.data(), queries.rows, rows.rows, stride}},
             Stream(Device::cpu(), num_threads));
  for (std::int64_t q = 0; q < queries.rows; ++q) {
    scores.insert(scores.end(), padded.begin() + q * stride,
                  padded.begin() + q * stride + rows.rows);
  }
  return scores;
}

TEST(RowScores, AreDotProductsOrCosinesByHand) {
  HostMatrix queries = host_matrix(2, 2, {1, 2, -1, 0.5});
  HostMatrix rows = host_matrix(3, 2, {3, 4, 0, 0, 0, -2});
  EXPECT_EQ(scores_of(queries.view(), rows.view(), ScoreBy::kDotProduct),
            (std::vector<float>{11, 0, -4, -1, 0, -1}));
  EXPECT_EQ(scores_of(queries.view(), rows.view(), ScoreBy::kCosine),
            (std::vector<float>{2.2f, 0, -2, -0.2f, 0, -0.5f}));
}

TEST(RowScores, BitsDependOnQueryAndRowAlone) {
  for (const std::int64_t dim : {1, 7, 24, 64}) {
    HostMatrix queries = HostMatrix::random(9, dim, 1), rows = HostMatrix::random(300, dim, 2);
    for (const ScoreBy score_by : {ScoreBy::kDotProduct, ScoreBy::kCosine}) {
      const auto all = scores_of(queries.view(), rows.view(), score_by);
      for (std::size_t i = 0; i < all.size(); ++i) {
        double score = 0, squares = 0;
        for (std::int64_t c = 0; c < dim; ++c) {
          const double value = rows.view().row(i % 300)[c];
          score += value * queries.view().row(i / 300)[c];
          squares += value * value;
        }
        if (score_by == ScoreBy::kCosine) score /= std::sqrt(squares);
        ASSERT_NEAR(all[i], score, 1e-5 * static_cast<double>(dim));
      }
      EXPECT_EQ(scores_of(queries.view(), rows.view(), score_by, 3), all);
      for (const auto& [q, r] : {std::pair{0, 0}, {3, 129}, {8, 299}, {5, 127}, {7, 17}}) {
        const auto alone = scores_of(queries.view().middle_rows(q, q + 1),
                                     rows.view().middle_rows(r, r + 1), score_by);
        EXPECT_EQ(std::memcmp(alone.data(), &all[q * 300 + r], sizeof(float)), 0)
            << dim << ", " << q << ", " << r;
      }
    }
  }
}

TEST(RowScores, NeedRoomForWholeVectors) {
  HostMatrix rows = host_matrix(1, 1, {1}), scores(1, 1);
  EXPECT_THROW(
      row_scores({rows.view(), rows.view(), ScoreBy::kDotProduct, scores.view()}, Stream()), Error);
}

}  // namespace
}  // namespace serrate
