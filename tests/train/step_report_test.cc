#include "src/train/step_report.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/support/run_ranks.h"

namespace serrate {
namespace {

TEST(StepReport, IsOneHostExchangeOfAllThatRanksHaveToKnow) {
  run_ranks(3, [](Communicator& c) {
    // Four shares, none on rank 1. The tree adds 1e16 + 1 and -1e16 + 1, which are 1e16 and -1e16;
    // one after the other they would make 1.
    const std::vector<std::vector<double>> losses{{1e16, 1}, {}, {-1e16, 1}};
    const std::vector<std::int64_t> words{c.rank(), 100 * c.rank(), -1};
    const std::int64_t before = c.num_exchanges();
    const StepTotals totals = exchange_reports(
        {.losses = losses[c.rank()], .next_tokens = 7 * c.rank(), .words = words}, c);
    EXPECT_EQ(c.num_exchanges() - before, 1);
    EXPECT_EQ(c.num_host_exchanges(), 1);
    EXPECT_EQ(totals.loss, 0);
    EXPECT_EQ(totals.next_tokens, 21);
    EXPECT_EQ(totals.words, (std::vector<std::int64_t>{3, 300, -3}));
  });
}

TEST(StepReport, OfOneRankIsItsOwn) {
  run_ranks(1, [](Communicator& c) {
    const std::vector<double> losses{0.5, 0.25};
    const StepTotals totals = exchange_reports({.losses = losses, .words = {}}, c);
    EXPECT_EQ(totals.loss, 0.75);
    EXPECT_TRUE(totals.words.empty());
  });
}

}  // namespace
}  // namespace serrate
