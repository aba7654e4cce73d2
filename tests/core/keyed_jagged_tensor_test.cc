#include <gtest/gtest.h>

#include "serrate/jagged_tensor.h"

namespace serrate {
namespace {

using Ints = std::vector<std::int64_t>;

Ints to_vector(DeviceSpan<const std::int64_t> values) {
  Ints host(values.size());
  copy_to_host(values, std::span(host), Stream());
  return host;
}

class KeyedJaggedTensorTest : public ::testing::Test {
 protected:
  // What making the tensor, or validating it, complains about.
  std::string error_of(const Ints& bags_per_key, const Ints& values_per_key, const Ints& values,
                       const Ints& offsets, const std::vector<float>& weights = {}) {
    try {
      KeyedJaggedTensor({"a", "b"}, bags_per_key, values_per_key, {values, stream},
                        {offsets, stream}, {weights, stream})
          .validate(stream);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kUsage);
      return error.what();
    }
    return "";
  }

  const Stream stream;
};

TEST_F(KeyedJaggedTensorTest, KeysHaveTheirOwnNumberOfBags) {
  const auto tensor = KeyedJaggedTensor::from_offsets({"item", "user"}, {{7, 8, 9}, {4, 5}},
                                                      {{0, 2, 2, 3}, {0, 2}}, stream);
  EXPECT_EQ(tensor.num_keys(), 2);
  EXPECT_EQ(tensor.num_bags(0), 3);
  EXPECT_EQ(tensor.num_bags(1), 1);
  EXPECT_EQ(tensor.num_values(0), 3);
  EXPECT_EQ(tensor.num_values(1), 2);
  EXPECT_FALSE(tensor.weighted());
  const JaggedView item = tensor.feature(0), user = tensor.feature(1);
  EXPECT_EQ(to_vector(item.values), (Ints{7, 8, 9}));
  EXPECT_EQ(to_vector(item.offsets), (Ints{0, 2, 2, 3}));
  EXPECT_EQ(user.num_bags(), 1);
  EXPECT_EQ(to_vector(user.values), (Ints{4, 5}));
  EXPECT_EQ(to_vector(user.offsets), (Ints{3, 5}));
}

TEST_F(KeyedJaggedTensorTest, WeightsFollowTheValues) {
  const KeyedJaggedTensor tensor({"a", "b"}, {1, 1}, {2, 1}, {Ints{1, 2, 3}, stream},
                                 {Ints{0, 2, 3}, stream},
                                 {std::vector<float>{.5, 1.5, 2.5}, stream});
  tensor.validate(stream);
  ASSERT_TRUE(tensor.weighted());
  EXPECT_EQ(host_view(tensor.feature(0).weights, stream)[1], 1.5f);
  EXPECT_EQ(host_view(tensor.feature(1).weights, stream)[0], 2.5f);
}

TEST_F(KeyedJaggedTensorTest, MayBeEmpty) {
  const auto tensor =
      KeyedJaggedTensor::from_offsets({"a", "b"}, {{}, {}}, {{0}, {0, 0, 0}}, stream);
  EXPECT_EQ(tensor.feature(0).num_bags(), 0);
  EXPECT_EQ(tensor.feature(1).num_bags(), 2);
  EXPECT_EQ(KeyedJaggedTensor().num_keys(), 0);
}

TEST_F(KeyedJaggedTensorTest, FindsAKeyByName) {
  const auto tensor = KeyedJaggedTensor::from_offsets({"a", "b"}, {{}, {}}, {{0}, {0}}, stream);
  EXPECT_EQ(tensor.index_of("b"), 1);
  try {
    tensor.index_of("c");
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "no feature \"c\" (there are: a, b)");
  }
  EXPECT_THROW(tensor.feature(2), Error);
}

TEST_F(KeyedJaggedTensorTest, RefusesSizesThatDoNotFit) {
  EXPECT_EQ(error_of({1, 1}, {1, 1}, {1, 2}, {0, 1, 2}), "");
  EXPECT_EQ(error_of({1}, {1, 1}, {1, 2}, {0, 1, 2}),
            "KeyedJaggedTensor: 2 keys, but sizes for 1 and 2");
  EXPECT_EQ(error_of({1, 1}, {1, 1}, {1, 2}, {0, 2}),
            "KeyedJaggedTensor: 2 bags need 3 offsets and 2 values (got 2 offsets and 2 values)");
  EXPECT_EQ(error_of({1, 1}, {1, 1}, {1}, {0, 1, 1}),
            "KeyedJaggedTensor: 2 bags need 3 offsets and 2 values (got 3 offsets and 1 values)");
  EXPECT_EQ(error_of({1, 1}, {1, 1}, {1, 2}, {0, 1, 2}, {1}),
            "KeyedJaggedTensor: 1 weights for 2 values");
}

TEST_F(KeyedJaggedTensorTest, ValidateNamesTheKeyAndTheBag) {
  EXPECT_EQ(error_of({1, 2}, {1, 2}, {1, 2, 3}, {0, 1, 0, 3}),
            "feature \"b\": bag 0 has length -1 (offsets must not fall)");
  EXPECT_EQ(error_of({1, 1}, {1, 1}, {1, 2}, {0, 2, 2}),
            "feature \"a\": offsets run from 0 to 2, its values from 0 to 1");
}

}  // namespace
}  // namespace serrate
