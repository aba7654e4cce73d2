#include "src/cli/stop_signals.h"

#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>

#include "tests/support/temporary_folder.h"

namespace serrate::cli {
namespace {

namespace fs = std::filesystem;

class RemoveOnStopSignalsTest : public ::testing::Test {
 protected:
  testing::TemporaryFolder temporary_;
  const std::string unfinished_ = temporary_.write("half.h5.tmp1", "half");
};

TEST_F(RemoveOnStopSignalsTest, KeepsTheName) {
  const std::string other = temporary_.write("half.h5.tmp2", "half");
  EXPECT_EXIT(
      {
        std::string file = unfinished_;
        remove_on_stop_signals(file);
        file.replace(0, file.size(), other);
        std::raise(SIGTERM);
      },
      ::testing::KilledBySignal(SIGTERM), "");
  EXPECT_FALSE(fs::exists(unfinished_));
  EXPECT_TRUE(fs::exists(other));
}

TEST_F(RemoveOnStopSignalsTest, LeavesIgnoredSignalsIgnored) {
  for (const int number : {SIGTERM, SIGINT, SIGUSR1, SIGHUP}) {
    EXPECT_EXIT(
        {
          std::signal(number, SIG_IGN);
          remove_on_stop_signals(unfinished_);
          std::raise(number);
          std::_Exit(0);
        },
        ::testing::ExitedWithCode(0), "");
    EXPECT_TRUE(fs::exists(unfinished_)) << number;
  }
}

}  // namespace
}  // namespace serrate::cli
