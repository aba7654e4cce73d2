#include "serrate/rank_device.h"

#include <gtest/gtest.h>

namespace serrate {
namespace {

using Kind = DeviceChoice::Kind;

TEST(DeviceChoice, IsReadFromWhatAnOptionSays) {
  EXPECT_EQ(device_choice_from_string("auto").kind, Kind::kAuto);
  EXPECT_EQ(device_choice_from_string("cpu").kind, Kind::kCpu);
  EXPECT_EQ(device_choice_from_string("cuda").kind, Kind::kCuda);
  EXPECT_EQ(device_choice_from_string("cuda").index, std::nullopt);
  EXPECT_EQ(device_choice_from_string("cuda:12").kind, Kind::kCuda);
  EXPECT_EQ(device_choice_from_string("cuda:12").index, 12);
}

TEST(DeviceChoice, RefusesAnythingElse) {
  for (const char* text : {"", "gpu", "CPU", "cuda:", "cuda:x", "cuda:-1", "cuda:1x", "cuda: 1",
                           "cuda:99999999999", "cpu:0", "auto "}) {
    try {
      device_choice_from_string(text);
      ADD_FAILURE() << "\"" << text << "\" is a device";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kUsage);
      EXPECT_EQ(error.what(),
                "the device is \"" + std::string(text) + "\" (must be auto|cpu|cuda|cuda:N)");
    }
  }
}

}  // namespace
}  // namespace serrate
