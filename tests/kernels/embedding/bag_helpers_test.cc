#include <gtest/gtest.h>

#include "serrate/error.h"
#include "serrate/kernels/bag_offsets.h"
#include "serrate/kernels/copy_runs.h"
#include "tests/support/test_array.h"
#include "tests/support/test_streams.h"

namespace serrate {
namespace {

using TestInts = TestArray<std::int64_t>;
using Floats = TestArray<float>;

class BagHelpersTest : public KernelTest {};

TEST_P(BagHelpersTest, MeanScalesOfEmptyBagsAreZero) {
  const TestInts offsets{7, 9, 9, 13}, other{0, 1};
  const Floats scales{-1, -1, -1}, other_scales{-1};
  const std::vector<MeanScales> segments{{offsets.on(stream), scales.on(stream)},
                                         {other.on(stream), other_scales.on(stream)}};
  mean_scales(segments, stream);
  EXPECT_EQ(scales.host(), (std::vector<float>{0.5f, 0.0f, 0.25f}));
  EXPECT_EQ(other_scales.host(), (std::vector<float>{1.0f}));
}

TEST_P(BagHelpersTest, MeanScalesCountIdsOfTheTableAlone) {
  const TestInts offsets{7, 9, 10, 13}, ids{4, -1, 5, 0, 9, 3};
  const Floats scales{-1, -1, -1};
  const MeanScales segment{offsets.on(stream), scales.on(stream), ids.on(stream), 5};
  mean_scales({&segment, 1}, stream);
  EXPECT_EQ(scales.host(), (std::vector<float>{1.0f, 0.0f, 0.5f}));
}

// More bags than a block of threads has, and bags that share and exceed what it reads at once.
TEST_P(BagHelpersTest, MeanScalesOfManyBags) {
  std::vector<std::int64_t> offsets{3}, ids;
  std::vector<float> expected;
  for (std::int64_t bag = 0; bag < 600; ++bag) {
    const std::int64_t length = bag == 20 ? 5000 : bag * 7 % 40;
    float count = 0;
    for (std::int64_t i = 0; i < length; ++i) {
      ids.push_back((bag + i * 11) % 30 - 5);  // 20 of 30 are in the table
      count += ids.back() >= 0 && ids.back() < 20 ? 1 : 0;
    }
    offsets.push_back(offsets.back() + length);
    expected.push_back(count > 0 ? 1 / count : 0);
  }
  const TestInts offsets_on_device(offsets), ids_on_device(ids);
  const Floats scales(std::vector<float>(expected.size(), -1));
  const MeanScales segment{offsets_on_device.on(stream), scales.on(stream),
                           ids_on_device.on(stream), 20};
  mean_scales({&segment, 1}, stream);
  EXPECT_EQ(scales.host(), expected);
}

TEST_P(BagHelpersTest, MeanScalesNeedAnEntryPerBag) {
  const TestInts offsets{7, 9, 9, 13};
  const Floats scales{-1, -1};
  const MeanScales segment{offsets.on(stream), scales.on(stream)};
  EXPECT_THROW(mean_scales({&segment, 1}, stream), Error);
}

TEST_P(BagHelpersTest, BagsOfIds) {
  const TestInts offsets{7, 9, 9, 12}, bags{-1, -1, -1, -1, -1}, other{0, 0, 1}, other_bags{-1};
  const std::vector<BagsOfIds> segments{{offsets.on(stream), bags.on(stream)},
                                        {other.on(stream), other_bags.on(stream)}};
  bags_of_ids(segments, stream);
  EXPECT_EQ(bags.host(), (std::vector<std::int64_t>{0, 0, 2, 2, 2}));
  EXPECT_EQ(other_bags.host(), (std::vector<std::int64_t>{1}));
}

// More bags than ids, and more than a block of threads copies.
TEST_P(BagHelpersTest, BagsOfIdsAmongManyEmptyBags) {
  std::vector<std::int64_t> offsets{7}, expected;
  const auto add = [&](std::int64_t bags, std::int64_t length) {
    for (std::int64_t bag = 0; bag < bags; ++bag) {
      expected.insert(expected.end(), length, std::ssize(offsets) - 1);
      offsets.push_back(offsets.back() + length);
    }
  };
  add(600, 1), add(3000, 0), add(2, 350), add(900, 0), add(100, 3), add(700, 0);
  const TestInts on_device(offsets), bags(std::vector<std::int64_t>(expected.size(), -1));
  const BagsOfIds segment{on_device.on(stream), bags.on(stream)};
  bags_of_ids({&segment, 1}, stream);
  EXPECT_EQ(bags.host(), expected);
}

TEST_P(BagHelpersTest, CopiesRuns) {
  const TestInts from{1, 2, 3, 4, 5}, to{-1, -1, -1, -1, -1, -1};
  const auto source = from.on(stream), target = to.on(stream);
  const std::vector<CopyRun<std::int64_t>> runs{{source.subspan(3, 2), target.subspan(1, 2)},
                                                {source.subspan(2, 0), target.subspan(4, 0)},
                                                {source.first(2), target.subspan(4, 2)}};
  copy_runs<std::int64_t>(runs, stream);
  EXPECT_EQ(to.host(), (std::vector<std::int64_t>{-1, 4, 5, -1, 1, 2}));
  const Floats weights{0.5f}, copied{0};
  const CopyRun<float> one{weights.on(stream), copied.on(stream)};
  copy_runs<float>({&one, 1}, stream);
  EXPECT_EQ(copied.host(), (std::vector<float>{0.5f}));
  const CopyRun<std::int64_t> uneven{source.first(2), target.first(3)};
  EXPECT_THROW(copy_runs<std::int64_t>({&uneven, 1}, stream), Error);
}

INSTANTIATE_TEST_SUITE_P(Device, BagHelpersTest, testing::ValuesIn(test_devices()), device_name);

}  // namespace
}  // namespace serrate
