#include "src/run/metrics_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>
#include <thread>

#include "tests/run/metrics_lines.h"
#include "tests/support/temporary_folder.h"

namespace serrate {
namespace {

namespace fs = std::filesystem;
using testing::read_file;
using testing::TemporaryFolder;

class MetricsFileTest : public ::testing::Test {
 protected:
  static std::string line(std::int64_t step) {
    return fmt::format(
        "{{\"step\": {}, \"epoch\": 0, \"loss\": 1.5, \"tokens\": 7, \"seconds\": {}.000}}\n", step,
        10 * step);
  }
  static std::string some_lines(std::int64_t first, std::int64_t last) {
    std::string text;
    for (std::int64_t i = first; i <= last; ++i) text += line(i);
    return text;
  }
  void open_and_write(std::int64_t steps_done) {
    MetricsFile file(path_, steps_done);
    file.write({.step = steps_done + 1, .epoch = 0, .loss = 1.5, .tokens = 7});
  }
  std::vector<std::int64_t> steps_after(const std::string& content, std::int64_t steps_done) {
    temporary_.write("m.jsonl", content);
    open_and_write(steps_done);
    return read_lines(path_).steps;
  }

  TemporaryFolder temporary_;
  std::string path_ = temporary_.file("m.jsonl");
};

TEST_F(MetricsFileTest, GoesOnAfterTheStepsDone) {
  open_and_write(0);
  EXPECT_EQ(read_lines(path_).steps, numbers(1, 1));
  EXPECT_EQ(steps_after(some_lines(1, 5), 5), numbers(1, 6));
  EXPECT_GE(read_lines(path_).seconds.back(), 50);  // goes on from the last line kept
  EXPECT_EQ(steps_after(some_lines(1, 9), 5), numbers(1, 6));
  // What a crash tore off, and what a power loss left: nothing after it counts.
  EXPECT_EQ(steps_after(some_lines(1, 5) + line(6).substr(0, 20), 5), numbers(1, 6));
  EXPECT_EQ(steps_after(some_lines(1, 5) + std::string(30, '\0'), 5), numbers(1, 6));
  EXPECT_EQ(steps_after(some_lines(1, 5) + line(5), 5), numbers(1, 6));
  EXPECT_FALSE(std::filesystem::exists(path_ + ".1"));
  // A run whose lines went elsewhere at first.
  EXPECT_EQ(steps_after(some_lines(3, 8), 5), numbers(3, 6));
}

TEST_F(MetricsFileTest, SetsADamagedFileAsideAndKeepsItsGoodLines) {
  struct Case {
    std::string content;
    std::vector<std::int64_t> kept;  // and then 5, after 4 steps
    std::string said;
  };
  const auto wrong = [&](const std::string& from, const std::string& to) {
    std::string text = line(2);
    text.replace(text.find(from), from.size(), to);
    return text;
  };
  const std::string missing = " has no lines of the steps ";
  for (const Case& c : std::initializer_list<Case>{
           {line(1) + wrong("\"step\": 2", "\"step\": 0") + some_lines(3, 4), {1, 3, 4}, "line 2"},
           {line(1) + wrong("\"step\": 2", "\"step\": 9") + some_lines(3, 4), {1, 3, 4}, "line 2"},
           {line(1) + wrong("1.5", "nan") + some_lines(3, 4), {1, 3, 4}, "line 2"},
           {line(1) + wrong("loss", "lass") + some_lines(3, 4), {1, 3, 4}, "line 2"},
           {line(1) + wrong("2,", "2.") + some_lines(3, 6), {1, 3, 4}, missing + "2,"},
           {line(1) + wrong("}\n", "}X") + some_lines(3, 6), {1, 4}, missing + "2 to 3,"},
           {some_lines(1, 3) + some_lines(2, 6), {1, 2, 3, 4}, "line 4"},
           {some_lines(1, 3) + line(7) + line(5), {1, 2, 3}, "line 4"},
           {some_lines(1, 3) + line(4).substr(0, 40), {1, 2, 3}, missing + "4,"},
           {line(2) + "\n" + line(4), {2, 4}, missing + "1, 3,"}}) {
    ::testing::internal::CaptureStderr();
    std::vector<std::int64_t> expected = c.kept;
    expected.push_back(5);
    EXPECT_EQ(steps_after(c.content, 4), expected) << c.content;
    const std::string said = ::testing::internal::GetCapturedStderr();
    EXPECT_NE(said.find(c.said), std::string::npos) << said << c.content;
    EXPECT_NE(said.find("the file is now " + path_ + ".1"), std::string::npos) << said;
    EXPECT_EQ(read_file(path_ + ".1"), c.content);
    fs::remove(path_ + ".1");
  }
}

TEST_F(MetricsFileTest, SaysWhichStepsWentElsewhere) {
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(steps_after(line(2) + some_lines(5, 6), 7), (std::vector<std::int64_t>{2, 5, 6, 8}));
  EXPECT_NE(::testing::internal::GetCapturedStderr().find("lines of the steps 1, 3 to 4, 7,"),
            std::string::npos);
  EXPECT_FALSE(fs::exists(path_ + ".1"));
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(steps_after(some_lines(1, 4), 4), numbers(1, 5));
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
}

TEST_F(MetricsFileTest, NeverOverwritesWhatIsNotItsOwn) {
  EXPECT_EQ(steps_after(some_lines(1, 3), 0), numbers(1, 1));
  EXPECT_EQ(read_file(path_ + ".1"), some_lines(1, 3));
  EXPECT_EQ(steps_after("a letter\n", 2), numbers(3, 3));
  EXPECT_EQ(read_file(path_ + ".2"), "a letter\n");
  EXPECT_EQ(steps_after("a letter", 0), numbers(1, 1));
  EXPECT_EQ(read_file(path_ + ".3"), "a letter");
}

TEST_F(MetricsFileTest, IsWrittenByOneTraining) {
  temporary_.write("m.jsonl", some_lines(1, 3));
  const std::string link = temporary_.file("link");
  fs::create_symlink(path_, link);
  const auto expect_refused = [&] {
    const std::string message = testing::message_of<Error>([&] { MetricsFile(link, 0); });
    EXPECT_NE(message.find(link + " is in use by another training"), std::string::npos) << message;
  };
  {
    MetricsFile first(path_, 3);
    expect_refused();
    first.write({.step = 4, .epoch = 0, .loss = 1.5, .tokens = 7});
    EXPECT_EQ(read_lines(path_).steps, numbers(1, 4));
  }
  const MetricsFile fresh(path_, 0);  // the lines are set aside, and the new file is its own too
  expect_refused();
  EXPECT_EQ(read_lines(path_ + ".1").steps, numbers(1, 4));
  EXPECT_FALSE(fs::exists(path_ + ".2"));
}

// Another training sets the file aside while this one opens it: a lease holds its open() back.
TEST_F(MetricsFileTest, IsTheFileThatHasTheName) {
  temporary_.write("m.jsonl", some_lines(1, 3));
  const FileDescriptor lease(::open(path_.c_str(), O_RDWR));
  const auto before = std::signal(SIGIO, SIG_IGN);  // what tells of the open()
  if (::fcntl(lease.number(), F_SETLEASE, F_WRLCK) != 0) GTEST_SKIP() << "no leases here";
  std::thread training([&] { open_and_write(3); });
  while (::fcntl(lease.number(), F_GETLEASE) == F_WRLCK) std::this_thread::yield();
  fs::rename(path_, path_ + ".1");
  temporary_.write("m.jsonl", some_lines(1, 3));
  ::fcntl(lease.number(), F_SETLEASE, F_UNLCK);
  training.join();
  std::signal(SIGIO, before);
  EXPECT_EQ(read_lines(path_).steps, numbers(1, 4));
  EXPECT_EQ(read_file(path_ + ".1"), some_lines(1, 3));
}

TEST_F(MetricsFileTest, FollowsLinks) {
  temporary_.write("target", some_lines(1, 9));
  std::filesystem::create_symlink(temporary_.file("target"), path_);
  open_and_write(2);
  EXPECT_TRUE(std::filesystem::is_symlink(path_));
  EXPECT_EQ(read_lines(temporary_.file("target")).steps, numbers(1, 3));
}

}  // namespace
}  // namespace serrate
