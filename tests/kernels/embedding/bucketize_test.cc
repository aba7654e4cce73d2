#include "serrate/kernels/bucketize.h"

#include <gtest/gtest.h>

#include <limits>

#include "serrate/error.h"
#include "tests/kernels/embedding/fixture.h"

namespace serrate {
namespace {

using Ints = std::vector<std::int64_t>;
using reference::Bags;

JaggedView view(const Bags& bags) {
  return {bags.indices, bags.offsets, bags.weights};
}

// What a BucketizedIds holds, on the host.
struct Blocks {
  Ints bag_counts, id_counts, bag_index, lengths, ids;
  std::vector<float> weights;
  friend bool operator==(const Blocks&, const Blocks&) = default;
};

Blocks bucketize_on_threads(const Bags& bags, const Ints& row_splits, int num_threads) {
  const Stream stream(Device::cpu(), num_threads);
  BucketizedIds result;
  bucketize(view(bags), row_splits, result, stream);
  return {result.bag_counts,
          result.id_counts,
          result.bag_index.to_host(stream),
          result.lengths.to_host(stream),
          result.ids.to_host(stream),
          result.weights.to_host(stream)};
}

// Block after block, each by a search of the whole feature.
Blocks expected_blocks(const Bags& bags, const Ints& row_splits) {
  Blocks blocks;
  for (std::size_t block = 0; block + 1 < row_splits.size(); ++block) {
    blocks.bag_counts.push_back(0);
    blocks.id_counts.push_back(0);
    for (std::int64_t bag = 0; bag < bags.num_bags(); ++bag) {
      std::int64_t length = 0;
      for (std::int64_t i = bags.offsets[bag]; i < bags.offsets[bag + 1]; ++i) {
        const std::int64_t at = i - bags.offsets[0], id = bags.indices[at];
        if (id < row_splits[block] || id >= row_splits[block + 1]) continue;
        ++length;
        blocks.ids.push_back(id - row_splits[block]);
        if (!bags.weights.empty()) blocks.weights.push_back(bags.weights[at]);
      }
      blocks.id_counts.back() += length;
      if (length == 0) continue;
      ++blocks.bag_counts.back();
      blocks.bag_index.push_back(bag);
      blocks.lengths.push_back(length);
    }
  }
  return blocks;
}

TEST(BucketizeTest, PartsIdsByRowBlock) {
  // Bags {0, 5, 1}, {}, {9, 9}, {4}; blocks of rows 0-4 and 5-9.
  const Bags bags{{0, 5, 1, 9, 9, 4}, {0, 3, 3, 5, 6}, {1, 2, 3, 4, 5, 6}};
  const Blocks blocks = bucketize_on_threads(bags, {0, 5, 10}, 1);
  EXPECT_EQ(blocks.bag_counts, (Ints{2, 2}));
  EXPECT_EQ(blocks.id_counts, (Ints{3, 3}));
  EXPECT_EQ(blocks.bag_index, (Ints{0, 3, 0, 2}));
  EXPECT_EQ(blocks.lengths, (Ints{2, 1, 1, 2}));
  EXPECT_EQ(blocks.ids, (Ints{0, 1, 4, 0, 4, 4}));
  EXPECT_EQ(blocks.weights, (std::vector<float>{1, 3, 6, 2, 4, 5}));
}

TEST(BucketizeTest, OneBlockKeepsTheFeatureLessItsEmptyBags) {
  const Blocks blocks = bucketize_on_threads({{3, 1, 2}, {5, 5, 7, 7, 8}, {}}, {0, 4}, 1);
  EXPECT_EQ(blocks.bag_counts, (Ints{2}));
  EXPECT_EQ(blocks.id_counts, (Ints{3}));
  EXPECT_EQ(blocks.bag_index, (Ints{1, 3}));
  EXPECT_EQ(blocks.lengths, (Ints{2, 1}));
  EXPECT_EQ(blocks.ids, (Ints{3, 1, 2}));
}

TEST(BucketizeTest, MatchesASearchOfTheWholeFeature) {
  // Even, uneven and empty blocks; many blocks.
  const std::vector<Ints> splits = {{0, 1000},
                                    {0, 500, 1000},
                                    {0, 1, 1, 990, 1000},
                                    {0, 0, 0, 1000, 1000},
                                    {0, 100, 200, 300, 400, 500, 1000}};
  for (const Ints& row_splits : splits) {
    for (const bool weighted : {false, true}) {
      const Bags bags = random_bags(200, 1000, 8, weighted, 3);
      const Blocks expected = expected_blocks(bags, row_splits);
      for (const int num_threads : {1, 2, 3}) {
        EXPECT_EQ(bucketize_on_threads(bags, row_splits, num_threads), expected)
            << row_splits.size() - 1 << " blocks, " << num_threads << " threads";
      }
    }
  }
}

TEST(BucketizeTest, ReusesItsResult) {
  const Stream stream;
  BucketizedIds result;
  const Bags large = random_bags(100, 50, 9, true, 4), small = random_bags(3, 50, 9, false, 5);
  bucketize(view(large), Ints{0, 10, 50}, result, stream);
  bucketize(view(small), Ints{0, 20, 30, 50}, result, stream);
  const Blocks expected = expected_blocks(small, {0, 20, 30, 50});
  EXPECT_EQ(result.bag_counts, expected.bag_counts);
  EXPECT_EQ(result.ids.to_host(stream), expected.ids);
  EXPECT_EQ(result.weights.size(), 0);
}

TEST(BucketizeTest, TakesNoBags) {
  const Blocks blocks = bucketize_on_threads({{}, {0}, {}}, {0, 5, 10}, 2);
  EXPECT_EQ(blocks.bag_counts, (Ints{0, 0}));
  EXPECT_EQ(blocks.ids, Ints{});
}

TEST(BucketizeTest, RejectsSplitsThatFall) {
  EXPECT_THROW(bucketize_on_threads({{}, {0}, {}}, {0, 7, 5}, 1), Error);
  EXPECT_THROW(bucketize_on_threads({{}, {0}, {}}, {1, 5}, 1), Error);
}

TEST(FindInvalidIdTest, FindsTheFirst) {
  const Stream stream;
  constexpr std::int64_t kLowest = std::numeric_limits<std::int64_t>::min();
  constexpr std::int64_t kHighest = std::numeric_limits<std::int64_t>::max();
  EXPECT_EQ(find_invalid_id(Ints{}, 10, stream), -1);
  EXPECT_EQ(find_invalid_id(Ints{0, 9}, 10, stream), -1);
  EXPECT_EQ(find_invalid_id(Ints{0, 10, -1}, 10, stream), 1);
  EXPECT_EQ(find_invalid_id(Ints{0, 0, -1}, 10, stream), 2);
  EXPECT_EQ(find_invalid_id(Ints{kLowest}, 10, stream), 0);
  EXPECT_EQ(find_invalid_id(Ints{kHighest}, 10, stream), 0);
  EXPECT_EQ(find_invalid_id(Ints{kHighest - 1, kLowest}, kHighest, stream), 1);
  Ints many(5000, 3);
  for (const std::int64_t at : {4999, 1024, 1023, 0}) {
    many[at] = 10;
    EXPECT_EQ(find_invalid_id(many, 10, stream), at);
  }
}

}  // namespace
}  // namespace serrate
