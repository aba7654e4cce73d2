#include "serrate/kernels/permute_bags.h"

#include <gtest/gtest.h>

#include "serrate/error.h"
#include "tests/kernels/embedding/fixture.h"
#include "tests/support/test_array.h"
#include "tests/support/test_streams.h"

namespace serrate {
namespace {

using reference::Matrix;

class PermuteBagsTest : public KernelTest {
 protected:
  // Two segments of partial sums for the same four bags.
  const TestArray<std::int64_t> first_bags{0, 2}, second_bags{2, 3};
  const TestArray<float> scale{1, 10, 0.5, 2};
};

TEST_P(PermuteBagsTest, ScatterAddsSegmentsInOrder) {
  TestMatrix first(matrix(2, 2, {1, 2, 3, 4}), stream), second(matrix(2, 2, {5, 6, 7, 8}), stream);
  TestMatrix bags(Matrix(4, 2), stream);
  const std::vector<BagRows> segments{{first_bags.on(stream), first.view(), bags.view(), {}},
                                      {second_bags.on(stream), second.view(), bags.view(), {}}};
  scatter_bags(segments, stream);
  EXPECT_EQ(bags.to_host(stream).values, (std::vector<double>{1, 2, 0, 0, 3 + 5, 4 + 6, 7, 8}));
}

TEST_P(PermuteBagsTest, ScatterScalesByBag) {
  TestMatrix rows(matrix(2, 2, {1, 2, 3, 4}), stream), bags(Matrix(4, 2), stream);
  const BagRows segment{first_bags.on(stream), rows.view(), bags.view(), scale.on(stream)};
  scatter_bags({&segment, 1}, stream);
  EXPECT_EQ(bags.to_host(stream).values, (std::vector<double>{1, 2, 0, 0, 1.5, 2, 0, 0}));
}

TEST_P(PermuteBagsTest, SegmentsWithoutBagsMayBeginWhereOthersDo) {
  TestMatrix rows(matrix(2, 2, {1, 2, 3, 4}), stream), bags(Matrix(4, 2), stream);
  const std::vector<BagRows> segments{
      {{}, rows.view().middle_rows(0, 0), bags.view().middle_rows(0, 0), {}},
      {first_bags.on(stream), rows.view(), bags.view(), {}}};
  scatter_bags(segments, stream);
  EXPECT_EQ(bags.to_host(stream).values, (std::vector<double>{1, 2, 0, 0, 3, 4, 0, 0}));
}

TEST_P(PermuteBagsTest, GatherIsTheReverse) {
  TestMatrix rows(matrix(2, 1, {9, 9}), stream), bags(matrix(4, 1, {1, 2, 3, 4}), stream);
  const BagRows segment{second_bags.on(stream), rows.view(), bags.view(), scale.on(stream)};
  gather_bags({&segment, 1}, stream);
  EXPECT_EQ(rows.to_host(stream).values, (std::vector<double>{1.5, 8}));
}

// gather is the transpose of scatter: dot(scatter(rows), bags) = dot(rows, gather(bags)).
TEST_P(PermuteBagsTest, GatherIsTheGradientOfScatter) {
  for (const int num_threads : {1, 3}) {
    const Stream& on = threads(num_threads);
    const Matrix x = random_matrix(40, 19, 1), d_bags = random_matrix(90, 19, 2);
    const TestArray<std::int64_t> bag_index(40);
    const TestArray<float> scales(90);
    for (std::int64_t i = 0; i < 40; ++i) bag_index[i] = 2 * i + i / 10;
    for (std::int64_t i = 0; i < 90; ++i) scales[i] = 1.0f / static_cast<float>(i + 1);
    TestMatrix rows(x, on), sums(Matrix(90, 19), on);
    TestMatrix d_rows(Matrix(40, 19), on), gradient(d_bags, on);
    const BagRows forward{bag_index.on(on), rows.view(), sums.view(), scales.on(on)};
    const BagRows backward{bag_index.on(on), d_rows.view(), gradient.view(), scales.on(on)};
    scatter_bags({&forward, 1}, on);
    gather_bags({&backward, 1}, on);
    EXPECT_NEAR(reference::dot(sums.to_host(on), d_bags), reference::dot(x, d_rows.to_host(on)),
                1e-5);
  }
}

TEST_P(PermuteBagsTest, TakesColumnsOfTheBags) {
  TestMatrix rows(matrix(1, 2, {1, 2}), stream), bags(Matrix(2, 4), stream);
  const TestArray<std::int64_t> bag{1};
  const BagRows segment{bag.on(stream), rows.view(), bags.view().columns(2, 4), {}};
  scatter_bags({&segment, 1}, stream);
  EXPECT_EQ(bags.to_host(stream).values, (std::vector<double>{0, 0, 0, 0, 0, 0, 1, 2}));
}

TEST_P(PermuteBagsTest, RejectsShapesThatDoNotFit) {
  TestMatrix rows(Matrix(2, 2), stream), bags(Matrix(4, 2), stream), wide(Matrix(4, 3), stream);
  const TestArray<std::int64_t> one_bag{1};
  const BagRows few_bags{one_bag.on(stream), rows.view(), bags.view(), {}};
  const BagRows other_columns{first_bags.on(stream), rows.view(), wide.view(), {}};
  const BagRows few_scales{first_bags.on(stream), rows.view(), bags.view(),
                           scale.on(stream).first(3)};
  for (const BagRows& bad : {few_bags, other_columns, few_scales}) {
    EXPECT_THROW(scatter_bags({&bad, 1}, stream), Error);
    EXPECT_THROW(gather_bags({&bad, 1}, stream), Error);
  }
}

INSTANTIATE_TEST_SUITE_P(Device, PermuteBagsTest, testing::ValuesIn(test_devices()), device_name);

}  // namespace
}  // namespace serrate
