#include "src/train/stage_times.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

namespace serrate {
namespace {

using std::chrono::milliseconds;

TEST(StageTimes, NothingIsMeasuredUnlessAskedFor) {
  const Stream stream;
  StageTimes times;
  times.start(stream);
  times.lap("lookup", stream);
  EXPECT_TRUE(times.seconds().empty());
}

TEST(StageTimes, ArePerStageAndLeaveOutWhatIsBeforeAStart) {
  const Stream stream;
  StageTimes times;
  times.measure();
  for (int step = 0; step < 2; ++step) {
    std::this_thread::sleep_for(milliseconds(50));
    times.start(stream);
    times.lap("lookup", stream);
    std::this_thread::sleep_for(milliseconds(5));
    times.lap("update", stream);
  }
  const auto& seconds = times.seconds();
  ASSERT_EQ(seconds.size(), 2u);
  EXPECT_EQ(seconds[0].first, "lookup");
  EXPECT_EQ(seconds[1].first, "update");
  EXPECT_GE(seconds[0].second, 0);
  EXPECT_GE(seconds[1].second, 0.010);
}

}  // namespace
}  // namespace serrate
