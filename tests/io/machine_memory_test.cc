#include "src/io/machine_memory.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "tests/support/temporary_folder.h"

namespace serrate {
namespace {

// A machine with 1,000 KiB available.
class MachineMemoryTest : public ::testing::Test {
 protected:
  MachineMemoryTest() { write("proc/meminfo", "MemTotal: 4000 kB\nMemAvailable:   1000 kB\n"); }
  void write(const std::string& name, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(folder_.file(name)).parent_path());
    folder_.write(name, text);
  }
  std::int64_t total() const { return machine_memory(folder_.file("")).total; }
  std::int64_t available() const { return machine_memory(folder_.file("")).available; }

 private:
  testing::TemporaryFolder folder_;
};

TEST_F(MachineMemoryTest, IsWhatLinuxSays) {
  EXPECT_EQ(total(), 4096'000);
  EXPECT_EQ(available(), 1024'000);
}

TEST_F(MachineMemoryTest, AGroupOfVersion2HasItsLimitLessWhatIsInUse) {
  write("proc/self/cgroup", "0::/jobs/one\n");
  write("sys/fs/cgroup/jobs/one/memory.max", "max\n");
  write("sys/fs/cgroup/jobs/one/memory.current", "1000\n");
  EXPECT_EQ(available(), 1024'000);
  write("sys/fs/cgroup/jobs/one/memory.max", "50000\n");
  EXPECT_EQ(available(), 49'000);
  EXPECT_EQ(total(), 50'000);
  write("sys/fs/cgroup/jobs/one/memory.stat", "anon 600\ninactive_file 300\n");
  EXPECT_EQ(available(), 49'300);
  // The group around it is full.
  write("sys/fs/cgroup/jobs/memory.max", "1200\n");
  write("sys/fs/cgroup/jobs/memory.current", "1300\n");
  EXPECT_EQ(available(), 0);
}

TEST_F(MachineMemoryTest, AGroupOfVersion1InsideAContainer) {
  // The path is the host's: what is mounted is the group itself.
  write("proc/self/cgroup", "9:name=systemd:/\n4:memory:/docker/abc\n0::/\n");
  write("sys/fs/cgroup/memory/memory.limit_in_bytes", "80000\n");
  write("sys/fs/cgroup/memory/memory.usage_in_bytes", "30000\n");
  EXPECT_EQ(available(), 50'000);
}

TEST(MachineMemoryHere, IsSomething) {
  EXPECT_GT(machine_memory().available, 1 << 20);
  EXPECT_GE(machine_memory().total, machine_memory().available);
  EXPECT_LT(machine_memory().total, std::int64_t{1} << 50);
}

}  // namespace
}  // namespace serrate
