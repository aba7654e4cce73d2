#include "serrate/kernels/bucketize.h"

#include <gtest/gtest.h>

#include <limits>
#include <list>
#include <utility>

#include "serrate/error.h"
#include "tests/kernels/embedding/fixture.h"
#include "tests/support/test_sizes.h"
#include "tests/support/test_streams.h"

namespace serrate {
namespace {

using Ints = std::vector<std::int64_t>;
using reference::Bags;

// What a BucketizedIds holds, on the host.
struct Blocks {
  Ints bag_splits{0}, id_splits{0}, num_outside, first_outside, bag_index, offsets, ids;
  std::vector<float> weights;
  friend bool operator==(const Blocks&, const Blocks&) = default;
};

struct Feature {
  Bags bags;
  Ints row_splits;
};

class BucketizeTest : public KernelTest {
 protected:
  Blocks parted(const std::vector<Feature>& features, OutsideIds outside = OutsideIds::kLeaveOut,
                int num_threads = 1) {
    const Stream& on = threads(num_threads);
    std::list<DeviceBags> device_bags;
    std::vector<BucketizeSegment> segments;
    for (const Feature& f : features) {
      const DeviceBags& bags = device_bags.emplace_back(f.bags, on);
      segments.push_back(
          {{bags.indices.span(), bags.offsets.span(), bags.weights.span()}, f.row_splits});
    }
    bucketize(segments, outside, result, on);
    const BucketSizes sizes = sizes_on_host(result, on);
    const auto first = [&](const auto& buffer, std::int64_t count) {
      auto values = buffer.to_host(on);
      EXPECT_LE(count, std::ssize(values));
      values.resize(count);
      return values;
    };
    const std::int64_t num_bags = sizes.bag_splits.back(), num_ids = sizes.id_splits.back();
    return {sizes.bag_splits,
            sizes.id_splits,
            sizes.num_outside,
            sizes.first_outside,
            first(result.bag_index, num_bags),
            first(result.offsets, num_bags + 1),
            first(result.ids, num_ids),
            first(result.weights, result.weights.size() > 0 ? num_ids : 0)};
  }

  BucketizedIds result;
};

// Block after block, each by a search of the whole feature.
void add_expected(const Feature& f, OutsideIds outside, Blocks& blocks) {
  const auto& [bags, row_splits] = f;
  blocks.num_outside.push_back(0);
  blocks.first_outside.push_back(-1);
  Ints rows = bags.indices;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (rows[i] >= 0 && rows[i] < row_splits.back()) continue;
    if (blocks.num_outside.back()++ == 0)
      blocks.first_outside.back() = static_cast<std::int64_t>(i);
    rows[i] = outside == OutsideIds::kLastRow ? row_splits.back() - 1 : -1;
  }
  for (std::size_t block = 0; block + 1 < row_splits.size(); ++block) {
    for (std::int64_t bag = 0; bag < bags.num_bags(); ++bag) {
      bool is_new = true;
      for (std::int64_t i = bags.offsets[bag]; i < bags.offsets[bag + 1]; ++i) {
        const std::int64_t at = i - bags.offsets[0], row = rows[at];
        if (row < row_splits[block] || row >= row_splits[block + 1]) continue;
        if (std::exchange(is_new, false)) {
          blocks.bag_index.push_back(bag);
          blocks.offsets.push_back(std::ssize(blocks.ids));
        }
        blocks.ids.push_back(row - row_splits[block]);
        if (!bags.weights.empty()) blocks.weights.push_back(bags.weights[at]);
      }
    }
    blocks.bag_splits.push_back(std::ssize(blocks.bag_index));
    blocks.id_splits.push_back(std::ssize(blocks.ids));
  }
}

Blocks expected_blocks(const std::vector<Feature>& features,
                       OutsideIds outside = OutsideIds::kLeaveOut) {
  Blocks blocks;
  for (const Feature& f : features) add_expected(f, outside, blocks);
  blocks.offsets.push_back(std::ssize(blocks.ids));
  return blocks;
}

TEST_P(BucketizeTest, PartsIdsByRowBlock) {
  // Bags {0, 5, 1}, {}, {9, 9}, {4}; blocks of rows 0-4 and 5-9.
  const Bags bags{{0, 5, 1, 9, 9, 4}, {0, 3, 3, 5, 6}, {1, 2, 3, 4, 5, 6}};
  const Blocks blocks = parted({{bags, {0, 5, 10}}});
  EXPECT_EQ(blocks.bag_splits, (Ints{0, 2, 4}));
  EXPECT_EQ(blocks.id_splits, (Ints{0, 3, 6}));
  EXPECT_EQ(blocks.bag_index, (Ints{0, 3, 0, 2}));
  EXPECT_EQ(blocks.offsets, (Ints{0, 2, 3, 4, 6}));
  EXPECT_EQ(blocks.ids, (Ints{0, 1, 4, 0, 4, 4}));
  EXPECT_EQ(blocks.weights, (std::vector<float>{1, 3, 6, 2, 4, 5}));
  EXPECT_EQ(blocks.num_outside, (Ints{0}));
  EXPECT_EQ(blocks.first_outside, (Ints{-1}));
}

TEST_P(BucketizeTest, OneBlockKeepsTheFeatureLessItsEmptyBags) {
  const Blocks blocks = parted({{{{3, 1, 2}, {5, 5, 7, 7, 8}, {}}, {0, 4}}});
  EXPECT_EQ(blocks.bag_splits, (Ints{0, 2}));
  EXPECT_EQ(blocks.id_splits, (Ints{0, 3}));
  EXPECT_EQ(blocks.bag_index, (Ints{1, 3}));
  EXPECT_EQ(blocks.offsets, (Ints{0, 2, 3}));
  EXPECT_EQ(blocks.ids, (Ints{3, 1, 2}));
}

TEST_P(BucketizeTest, LeavesIdsOutsideTheTableOut) {
  // Bags {3, -1}, {}, {4, 5, 0}, {9} of a table of 5 rows in two blocks and in one.
  const Bags bags{{3, -1, 4, 5, 0, 9}, {10, 12, 12, 15, 16}, {1, 2, 3, 4, 5, 6}};
  const Blocks blocks = parted({{bags, {0, 3, 5}}, {bags, {0, 5}}});
  EXPECT_EQ(blocks.bag_splits, (Ints{0, 1, 3, 5}));
  EXPECT_EQ(blocks.bag_index, (Ints{2, 0, 2, 0, 2}));
  EXPECT_EQ(blocks.offsets, (Ints{0, 1, 2, 3, 4, 6}));
  EXPECT_EQ(blocks.ids, (Ints{0, 0, 1, 3, 4, 0}));
  EXPECT_EQ(blocks.weights, (std::vector<float>{5, 1, 3, 1, 3, 5}));
  EXPECT_EQ(blocks.num_outside, (Ints{3, 3}));
  EXPECT_EQ(blocks.first_outside, (Ints{1, 1}));
}

TEST_P(BucketizeTest, SendsIdsOutsideTheTableToItsLastRow) {
  const Blocks blocks =
      parted({{{{3, -1, 4, 5, 0}, {0, 2, 5}, {}}, {0, 3, 5}}}, OutsideIds::kLastRow);
  EXPECT_EQ(blocks.bag_splits, (Ints{0, 1, 3}));
  EXPECT_EQ(blocks.bag_index, (Ints{1, 0, 1}));
  EXPECT_EQ(blocks.offsets, (Ints{0, 1, 3, 5}));
  EXPECT_EQ(blocks.ids, (Ints{0, 0, 1, 1, 1}));
  EXPECT_EQ(blocks.num_outside, (Ints{2}));
  EXPECT_EQ(blocks.first_outside, (Ints{1}));
}

TEST_P(BucketizeTest, MatchesASearchOfTheWholeFeature) {
  // Even, uneven and empty blocks; many blocks.
  const std::vector<Ints> splits = {{0, 1000},
                                    {0, 500, 1000},
                                    {0, 1, 1, 990, 1000},
                                    {0, 0, 0, 1000, 1000},
                                    {0, 100, 200, 300, 400, 500, 1000}};
  for (const bool weighted : {false, true}) {
    for (const std::int64_t num_ids : {1000, 1100}) {  // the last 100 of them outside
      std::vector<Feature> features;
      for (const Ints& row_splits : splits) {
        const auto seed = static_cast<std::uint32_t>(features.size());
        features.push_back({random_bags(120, num_ids, 8, weighted, seed), row_splits});
      }
      for (const OutsideIds outside : {OutsideIds::kLeaveOut, OutsideIds::kLastRow}) {
        const Blocks expected = expected_blocks(features, outside);
        for (int num_threads = 1; num_threads <= most_threads(); ++num_threads) {
          EXPECT_EQ(parted(features, outside, num_threads), expected)
              << num_ids << " ids, " << num_threads << " threads";
          result = {};  // before its stream goes
        }
      }
    }
  }
}

// A block of threads has so few of the ids, and copies so few splits and offsets, that it searches
// in more of them where they are.
TEST_P(BucketizeTest, MatchesASearchAmongManyBlocksAndEmptyBags) {
  Feature sparse{random_bags(400, 1100, 8, true, 9), {0, 500, 1000}};
  Ints& offsets = sparse.bags.offsets;
  offsets.insert(offsets.begin() + 200, 1200, offsets[200]);
  Feature parts{random_bags(120, 1100, 8, true, 10), {}};
  for (std::int64_t block = 0; block <= 1200; ++block) {
    parts.row_splits.push_back(block * 1000 / 1200);
  }
  EXPECT_EQ(parted({sparse, parts}), expected_blocks({sparse, parts}));
}

// On a GPU a block of threads has 512 ids. Ten of the row blocks are one row each, of which a bag
// that goes on from one to the next may have an id in either, in both or in none.
TEST_P(BucketizeTest, MatchesASearchWhereBagsAreLong) {
  const Ints splits{0, 60, 61, 62, 63, 64, 65, 66, 67, 68, 69, 70};
  std::vector<Feature> features;
  for (const std::int64_t size : {1, 511, 512, 513, 1500}) {
    for (const std::int64_t length : {1, 100, 600, 1500}) {
      Feature& f = features.emplace_back(Feature{{{}, {}, {}}, splits});
      for (std::int64_t i = 0; i < size; ++i) {
        if (i % length == 0) f.bags.offsets.push_back(i);
        f.bags.indices.push_back(random_below(3, RandomUse::kInit, size + length, i, 75));
      }
      f.bags.offsets.push_back(size);
    }
  }
  const Ints one_row(1500, 61);
  features.push_back({{one_row, {0, 600, 1500}, {}}, splits});
  features.push_back({{one_row, {0, 600, 1500}, {}}, {0, 70}});
  EXPECT_EQ(parted(features), expected_blocks(features));
}

TEST_P(BucketizeTest, ReusesItsResult) {
  const Feature large{random_bags(100, 50, 9, true, 4), {0, 10, 50}};
  const Feature small{random_bags(3, 50, 9, false, 5), {0, 20, 30, 50}};
  EXPECT_EQ(parted({large}), expected_blocks({large}));
  EXPECT_EQ(parted({small, small}), expected_blocks({small, small}));
}

TEST_P(BucketizeTest, TakesNoBagsAndNoSegments) {
  const Blocks blocks = parted({{{{}, {0}, {}}, {0, 5, 10}}, {{{}, {3, 3, 3}, {}}, {0, 5}}});
  EXPECT_EQ(blocks.bag_splits, (Ints{0, 0, 0, 0}));
  EXPECT_EQ(blocks.id_splits, (Ints{0, 0, 0, 0}));
  EXPECT_EQ(blocks.offsets, Ints{0});
  EXPECT_EQ(parted({}), expected_blocks({}));
}

TEST_P(BucketizeTest, FindsTheFirstIdOutside) {
  constexpr std::int64_t kLowest = std::numeric_limits<std::int64_t>::min();
  constexpr std::int64_t kHighest = std::numeric_limits<std::int64_t>::max();
  const auto first_outside = [&](const Ints& ids, std::int64_t num_rows) {
    return parted({{{ids, {0, std::ssize(ids)}, {}}, {0, num_rows}}}).first_outside.at(0);
  };
  EXPECT_EQ(first_outside({}, 10), -1);
  EXPECT_EQ(first_outside({0, 9}, 10), -1);
  EXPECT_EQ(first_outside({0, 10, -1}, 10), 1);
  EXPECT_EQ(first_outside({0, 0, -1}, 10), 2);
  EXPECT_EQ(first_outside({kLowest}, 10), 0);
  EXPECT_EQ(first_outside({kHighest}, 10), 0);
  EXPECT_EQ(first_outside({kHighest - 1, kLowest}, kHighest), 1);
  Ints many(5000, 3);
  for (const std::int64_t at : {4999, 1024, 1023, 0}) {
    many[at] = 10;
    EXPECT_EQ(first_outside(many, 10), at);
  }
}

TEST_P(BucketizeTest, RejectsWhatDoesNotFit) {
  const Bags none{{}, {0}, {}};
  EXPECT_THROW(parted({{none, {0, 7, 5}}}), Error);
  EXPECT_THROW(parted({{none, {1, 5}}}), Error);
  EXPECT_THROW(parted({{{{1, 2}, {0}, {}}, {0, 5}}}), Error);
  EXPECT_THROW(parted({{{{1, 2}, {0, 2}, {1}}, {0, 5}}}), Error);
  EXPECT_THROW(parted({{{{1}, {0, 1}, {1}}, {0, 5}}, {{{1}, {0, 1}, {}}, {0, 5}}}), Error);
}

INSTANTIATE_TEST_SUITE_P(Device, BucketizeTest, testing::ValuesIn(test_devices()), device_name);

}  // namespace
}  // namespace serrate
