#include "serrate/kernels/add_to.h"

#include <gtest/gtest.h>

#include "serrate/error.h"
#include "tests/support/test_array.h"
#include "tests/support/test_streams.h"

namespace serrate {
namespace {

class AddToTest : public KernelTest {};

TEST_P(AddToTest, Adds) {
  const TestArray<float> values{1, 2, 3}, sum{10, 20, 30};
  add_to(values.on(stream), sum.on(stream), stream);
  EXPECT_EQ(sum.host(), (std::vector<float>{11, 22, 33}));
  EXPECT_THROW(add_to(values.on(stream), sum.on(stream).first(2), stream), Error);
}

INSTANTIATE_TEST_SUITE_P(Device, AddToTest, testing::ValuesIn(test_devices()), device_name);

}  // namespace
}  // namespace serrate
