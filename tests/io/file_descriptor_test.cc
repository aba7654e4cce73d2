#include "src/io/file_descriptor.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "serrate/error.h"
#include "tests/support/temporary_folder.h"

namespace serrate {
namespace {

TEST(FileDescriptorTest, ClosesWhatAnAssignmentReplaces) {
  const testing::TemporaryFolder temporary;
  const std::string name = temporary.write("file", "text");
  FileDescriptor file(::open(name.c_str(), O_RDONLY));
  const int before = file.number();
  FileDescriptor other(::open(name.c_str(), O_RDONLY));
  const int after = other.number();
  file = FileDescriptor(std::move(other));
  EXPECT_EQ(file.number(), after);
  EXPECT_EQ(::fcntl(before, F_GETFD), -1);
  EXPECT_NE(::fcntl(after, F_GETFD), -1);
}

TEST(OpenLockedTest, KeepsOthersOutUntilItIsClosed) {
  const testing::TemporaryFolder temporary;
  const std::string name = temporary.file("file");
  {
    const LockedFile first = open_locked(name, O_RDWR | O_CREAT);
    EXPECT_TRUE(first.is_ours);
    const LockedFile second = open_locked(name, O_RDWR);
    EXPECT_FALSE(second.is_ours);
    EXPECT_EQ(::write(second.file.number(), "text", 4), 4);  // open all the same
  }
  EXPECT_TRUE(open_locked(name, O_RDWR).is_ours);
  const std::string message =
      testing::message_of<Error>([&] { open_locked(temporary.file("none/file"), O_RDWR); });
  EXPECT_NE(message.find("none/file cannot be written (No such file"), std::string::npos)
      << message;
}

// A file that is open for reading alone cannot have a lock of writers.
TEST(OpenLockedTest, SaysOfEachFileThatItCannotBeLocked) {
  const testing::TemporaryFolder temporary;
  for (const char* name : {"a", "b"}) {
    const std::string file = temporary.write(name, "text");
    ::testing::internal::CaptureStderr();
    EXPECT_TRUE(open_locked(file, O_RDONLY).is_ours);
    const std::string said = ::testing::internal::GetCapturedStderr();
    EXPECT_NE(said.find(file + " cannot be locked (Bad file descriptor)"), std::string::npos)
        << said;
  }
}

}  // namespace
}  // namespace serrate
