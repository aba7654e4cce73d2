#include "serrate/kernels/row_scores.h"

#include <cmath>
#include <cstring>

#include "serrate/error.h"
#include "tests/kernels/test_matrix.h"
#include "tests/support/test_streams.h"

namespace serrate {
namespace {

class RowScoresTest : public KernelTest {
 protected:
  /// Scores [queries, rows], without the room behind each row of them.
  std::vector<float> scores_of(DeviceMatrix<const float> queries, DeviceMatrix<const float> rows,
                               ScoreBy score_by, int num_threads = 1) {
    const std::int64_t stride = (rows.rows + kRowScoresRoom - 1) / kRowScoresRoom * kRowScoresRoom;
    const TestArray<float> padded(queries.rows * stride);
    row_scores({queries,
                rows,
                score_by,
                {padded.on(stream).device_data(), queries.rows, rows.rows, stride}},
               threads(num_threads));
    std::vector<float> scores;
    for (std::int64_t q = 0; q < queries.rows; ++q) {
      const auto row = padded.host().begin() + q * stride;
      scores.insert(scores.end(), row, row + rows.rows);
    }
    return scores;
  }
};

INSTANTIATE_TEST_SUITE_P(Device, RowScoresTest, testing::ValuesIn(test_devices()), device_name);

TEST_P(RowScoresTest, AreDotProductsOrCosinesByHand) {
  TestMatrix queries = test_matrix(2, 2, {1, 2, -1, 0.5});
  TestMatrix rows = test_matrix(3, 2, {3, 4, 0, 0, 0, -2});
  EXPECT_EQ(scores_of(queries.on(stream), rows.on(stream), ScoreBy::kDotProduct),
            (std::vector<float>{11, 0, -4, -1, 0, -1}));
  EXPECT_EQ(scores_of(queries.on(stream), rows.on(stream), ScoreBy::kCosine),
            (std::vector<float>{2.2f, 0, -2, -0.2f, 0, -0.5f}));
}

TEST_P(RowScoresTest, BitsDependOnQueryAndRowAlone) {
  for (const std::int64_t dim : {1, 7, 24, 64}) {
    TestMatrix queries = TestMatrix::random(9, dim, 1), rows = TestMatrix::random(300, dim, 2);
    for (const ScoreBy score_by : {ScoreBy::kDotProduct, ScoreBy::kCosine}) {
      const auto all = scores_of(queries.on(stream), rows.on(stream), score_by);
      for (std::size_t i = 0; i < all.size(); ++i) {
        double score = 0, squares = 0;
        for (std::int64_t c = 0; c < dim; ++c) {
          const double value = rows(i % 300, c);
          score += value * queries(i / 300, c);
          squares += value * value;
        }
        if (score_by == ScoreBy::kCosine) score /= std::sqrt(squares);
        ASSERT_NEAR(all[i], score, 1e-5 * static_cast<double>(dim));
      }
      EXPECT_EQ(scores_of(queries.on(stream), rows.on(stream), score_by, 3), all);
      for (const auto& [q, r] : {std::pair{0, 0}, {3, 129}, {8, 299}, {5, 127}, {7, 17}}) {
        const auto alone = scores_of(queries.on(stream).middle_rows(q, q + 1),
                                     rows.on(stream).middle_rows(r, r + 1), score_by);
        EXPECT_EQ(std::memcmp(alone.data(), &all[q * 300 + r], sizeof(float)), 0)
            << dim << ", " << q << ", " << r;
      }
    }
  }
}

TEST_P(RowScoresTest, NeedRoomForWholeVectors) {
  TestMatrix rows = test_matrix(1, 1, {1}), scores(1, 1);
  EXPECT_THROW(
      row_scores({rows.on(stream), rows.on(stream), ScoreBy::kDotProduct, scores.on(stream)},
                 stream),
      Error);
}

}  // namespace
}  // namespace serrate
