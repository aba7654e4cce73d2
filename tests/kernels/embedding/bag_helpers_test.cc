#include <gtest/gtest.h>

#include "serrate/kernels/add_to.h"
#include "serrate/kernels/bag_offsets.h"
#include "serrate/kernels/invalid_ids.h"

namespace serrate {
namespace {

using Ints = std::vector<std::int64_t>;
using Floats = std::vector<float>;

const Stream& cpu() {
  static const Stream stream;
  return stream;
}

TEST(BagOffsets, FromLengths) {
  const Ints lengths{2, 0, 3};
  Ints offsets(4, -1);
  offsets_from_lengths(lengths, offsets, cpu());
  EXPECT_EQ(offsets, (Ints{0, 2, 2, 5}));
  Ints none(1, -1);
  offsets_from_lengths({}, none, cpu());
  EXPECT_EQ(none, (Ints{0}));
  EXPECT_THROW(offsets_from_lengths(lengths, none, cpu()), Error);
}

TEST(MeanScales, EmptyBagsAreZero) {
  const Ints offsets{7, 9, 9, 13};
  Floats scales(3, -1);
  mean_scales(offsets, scales, cpu());
  EXPECT_EQ(scales, (Floats{0.5f, 0.0f, 0.25f}));
  EXPECT_THROW(mean_scales(offsets, std::span(scales).first(2), cpu()), Error);
}

TEST(AddTo, Adds) {
  const Floats values{1, 2, 3};
  Floats sum{10, 20, 30};
  add_to(values, sum, cpu());
  EXPECT_EQ(sum, (Floats{11, 22, 33}));
  EXPECT_THROW(add_to(values, std::span(sum).first(2), cpu()), Error);
}

TEST(InvalidIds, AreDroppedWithTheirWeights) {
  // Offsets of a feature that is not the first of its tensor.
  const Ints values{3, -1, 4, 5, 0, 9}, offsets{10, 12, 12, 15, 16};
  const Floats weights{1, 2, 3, 4, 5, 6};
  ValidIds result;
  EXPECT_EQ(drop_invalid_ids({values, offsets, weights}, 5, result, cpu()), 3);
  EXPECT_EQ(result.values.to_host(cpu()), (Ints{3, 4, 0}));
  EXPECT_EQ(result.offsets.to_host(cpu()), (Ints{0, 1, 1, 3, 3}));
  EXPECT_EQ(result.weights.to_host(cpu()), (Floats{1, 3, 5}));
  EXPECT_EQ(drop_invalid_ids({values, offsets, {}}, 10, result, cpu()), 1);
  EXPECT_EQ(result.values.to_host(cpu()), (Ints{3, 4, 5, 0, 9}));
  EXPECT_EQ(result.weights.size(), 0);
}

TEST(InvalidIds, AreReplaced) {
  const Ints values{3, -1, 4, 5, 0};
  Ints result(5);
  EXPECT_EQ(replace_invalid_ids(values, 5, 4, result, cpu()), 2);
  EXPECT_EQ(result, (Ints{3, 4, 4, 4, 0}));
}

}  // namespace
}  // namespace serrate
