#include "serrate/kernels/top_k.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/kernels/test_matrix.h"
#include "tests/support/test_sizes.h"
#include "tests/support/test_streams.h"

namespace serrate {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
using Ids = std::vector<std::int64_t>;

struct Best {
  std::vector<float> scores;
  Ids ids;
  friend bool operator==(const Best&, const Best&) = default;
};

class TopKTest : public KernelTest {
 protected:
  Best run(const TestMatrix& scores, std::int64_t k, std::int64_t first_id, const Ids& excluded,
           const Ids& offsets, int num_threads = 1) {
    const std::int64_t n = scores.rows();
    const TestArray<float> best_scores(n * k);
    const TestArray<std::int64_t> best_ids(n * k), out(excluded), out_offsets(offsets);
    top_k({scores.on(stream),
           first_id,
           out.on(stream),
           out_offsets.on(stream),
           {best_scores.on(stream), n, k},
           {best_ids.on(stream), n, k}},
          threads(num_threads));
    return {best_scores.host(), best_ids.host()};
  }
};

INSTANTIATE_TEST_SUITE_P(Device, TopKTest, testing::ValuesIn(test_devices()), device_name);

TEST_P(TopKTest, TiesGoToTheSmallerIdAndExcludedAreLeftOut) {
  TestMatrix scores = test_matrix(2, 5, {1, 3, 3, 2, 3, 1, 1, 1, 1, 9});
  EXPECT_EQ(run(scores, 2, 100, {}, {}), (Best{{3, 3, 9, 1}, {101, 102, 104, 100}}));
  EXPECT_EQ(run(scores, 2, 100, {102, 101, 104, 100}, {0, 2, 4}),
            (Best{{3, 2, 1, 1}, {104, 103, 101, 102}}));
}

TEST_P(TopKTest, FewCandidatesAreFilledUp) {
  TestMatrix scores = test_matrix(1, 3, {5, -kInfinity, 7});
  EXPECT_EQ(run(scores, 4, 0, {2}, {0, 1}),
            (Best{{5, -kInfinity, -kInfinity, -kInfinity}, {0, 1, -1, -1}}));
  TestMatrix none(1, 0);
  EXPECT_EQ(run(none, 1, 0, {}, {}), (Best{{-kInfinity}, {-1}}));
  EXPECT_EQ(run(scores, 0, 0, {}, {}), Best{});
}

TEST_P(TopKTest, AgreesWithSortingOnAnyThreads) {
  const std::int64_t n = 7, candidates = 1003, k = 20;
  TestMatrix scores(n, candidates);
  Ids excluded, offsets{0};
  for (std::int64_t r = 0; r < n; ++r) {
    for (std::int64_t c = 0; c < candidates; ++c) {  // many ties
      scores(r, c) =
          static_cast<float>(random_below(r, RandomUse::kInit, 0, c, r == 0 ? 3 : 400)) - 100;
    }
    for (std::int64_t i = 0; i < 30 * r; ++i) excluded.push_back(50 + (i * 17) % 1003);
    offsets.push_back(std::ssize(excluded));
  }
  Best expected;
  for (std::int64_t r = 0; r < n; ++r) {
    std::vector<std::pair<float, std::int64_t>> all;
    for (std::int64_t c = 0; c < candidates; ++c) {
      const auto begin = excluded.begin() + offsets[r], end = excluded.begin() + offsets[r + 1];
      if (std::find(begin, end, 50 + c) == end) all.push_back({-scores(r, c), 50 + c});
    }
    std::sort(all.begin(), all.end());
    for (std::int64_t i = 0; i < k; ++i) {
      expected.scores.push_back(-all[i].first);
      expected.ids.push_back(all[i].second);
    }
  }
  for (int num_threads = 1; num_threads <= most_threads(); ++num_threads) {
    EXPECT_EQ(run(scores, k, 50, excluded, offsets, num_threads), expected);
  }
}

TEST_P(TopKTest, ARowWithAScoreThatIsNotANumberHasNoBest) {
  TestMatrix scores(40, 50, 1);
  scores(17, 49) = std::numeric_limits<float>::quiet_NaN();
  scores(31, 0) = std::numeric_limits<float>::quiet_NaN();
  const Best best = run(scores, 3, 0, {}, {}, 2);
  for (std::int64_t i = 0; i < 40 * 3; ++i) {
    const bool has_nan = i / 3 == 17 || i / 3 == 31;
    EXPECT_EQ(std::isnan(best.scores[i]), has_nan) << i;
    EXPECT_EQ(best.ids[i], has_nan ? -1 : i % 3) << i;
  }
}

}  // namespace
}  // namespace serrate
