#include "src/train/next_item_batch.h"

#include <gtest/gtest.h>

#include "tests/support/on_host.h"

namespace serrate {
namespace {

using Ids = std::vector<std::int64_t>;

/// Two windows: items 4 1 9 2 and 3 0; item 9 is not one of the 5 known.
SequenceBatch windows() {
  SequenceBatch batch;
  batch.epoch = 2;
  batch.sample_ids = {7, 8};
  batch.sequence_offsets = {0, 4, 6};
  batch.features.push_back({.values = {4, 1, 9, 2, 3, 0}, .offsets = {0, 1, 2, 3, 4, 5, 6}});
  return batch;
}

Ids values(const NextItemBatch& batch, const std::string& feature) {
  return on_host(batch.features.feature(batch.features.index_of(feature)).values, Stream());
}

BatchShape shape(InvalidIds policy) {
  return {.max_length = 10, .micro_batch_tokens = 3, .num_items = 5, .invalid_ids = policy};
}

TEST(NextItemBatchTest, InputsAreAllButTheLastTargetsAllButTheFirst) {
  const Stream stream;
  const auto batch =
      make_next_item_batch(windows(), {"item"}, {2, 3}, shape(InvalidIds::kError), stream);
  EXPECT_EQ(values(batch, "item"), (Ids{4, 1, 9, 3}));
  EXPECT_EQ(values(batch, kTargetFeature), (Ids{1, 9, 2, 0}));
  EXPECT_EQ(values(batch, kNegativeFeature), (Ids{2, 3}));
  EXPECT_EQ(batch.positions.to_host(stream), (Ids{0, 1, 2, 0}));
  EXPECT_EQ(batch.token_ids.to_host(stream), (Ids{70, 71, 72, 80}));
  EXPECT_EQ(batch.epoch, 2);
  EXPECT_EQ(batch.dropped_events, 0);
  // 3 tokens at once: one window each.
  ASSERT_EQ(batch.micro_batches.size(), 2u);
  EXPECT_EQ(batch.micro_batches[0].sequence_offsets.to_host(stream), (Ids{0, 3}));
  EXPECT_EQ(batch.micro_batches[1].sequence_offsets.to_host(stream), (Ids{0, 1}));
  EXPECT_EQ(batch.micro_batches[1].first_token, 3);
}

TEST(NextItemBatchTest, DropLeavesTheEventOfAnUnknownItemOut) {
  const Stream stream;
  const auto batch =
      make_next_item_batch(windows(), {"item"}, {2}, shape(InvalidIds::kDrop), stream);
  EXPECT_EQ(values(batch, "item"), (Ids{4, 1, 3}));
  EXPECT_EQ(values(batch, kTargetFeature), (Ids{1, 2, 0}));
  EXPECT_EQ(batch.dropped_events, 1);
}

TEST(NextItemBatchTest, HistoriesAreInputsAlone) {
  const Stream stream;
  const auto batch = make_history_batch(windows(), {"item"}, shape(InvalidIds::kError), stream);
  EXPECT_EQ(values(batch, "item"), (Ids{4, 1, 9, 2, 3, 0}));
  EXPECT_EQ(values(batch, kTargetFeature), Ids{});
  EXPECT_EQ(batch.num_tokens(), 6);
}

TEST(NextItemBatchTest, NegativesAreTheSameForEveryRankAndCoverAllItemsWhenAsked) {
  EXPECT_EQ(draw_negatives(0, 4, 1, 9), (Ids{0, 1, 2, 3}));
  EXPECT_EQ(draw_negatives(100, 7, 1, 9), draw_negatives(100, 7, 1, 9));
  EXPECT_NE(draw_negatives(100, 7, 1, 9), draw_negatives(100, 7, 1, 10));
  std::vector<int> count(7);
  for (const std::int64_t id : draw_negatives(7000, 7, 1, 9)) ++count.at(id);
  for (const int c : count) EXPECT_NEAR(c, 1000, 150);  // five standard deviations
}

}  // namespace
}  // namespace serrate
