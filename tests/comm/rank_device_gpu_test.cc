// Where there is a GPU: whichever the ranks get, it is one that there is.
#include <gtest/gtest.h>

#include "serrate/buffer.h"
#include "serrate/rank_device.h"
#include "src/core/gpus.h"
#include "tests/support/run_ranks.h"

namespace serrate {
namespace {

TEST(ChooseDevice, RanksHaveTheGpusOfTheirMachineInTurn) {
  const auto count = std::ssize(find_gpus().addresses);
  ASSERT_GT(count, 0);
  run_ranks(3, [&](Communicator& communicator) {
    const Device expected = Device::cuda(static_cast<int>(communicator.rank() % count));
    EXPECT_EQ(choose_device({DeviceChoice::Kind::kCuda}, communicator), expected);
    EXPECT_EQ(choose_device({DeviceChoice::Kind::kCuda, 0}, communicator), Device::cuda(0));
    EXPECT_EQ(choose_device({DeviceChoice::Kind::kCpu}, communicator), Device::cpu());
  });
}

TEST(ChooseDevice, AutoIsAGpuWhereEveryRankHasOne) {
  const auto count = static_cast<int>(std::ssize(find_gpus().addresses));
  run_ranks(count, [](Communicator& communicator) {
    EXPECT_EQ(choose_device({}, communicator), Device::cuda(communicator.rank()));
  });
  run_ranks(count + 1, [](Communicator& communicator) {
    EXPECT_EQ(choose_device({}, communicator), Device::cpu());
  });
}

TEST(ChooseDevice, AGpuThatIsNotThereIsRefused) {
  const auto count = static_cast<int>(std::ssize(find_gpus().addresses));
  try {
    run_ranks(2, [&](Communicator& communicator) {
      choose_device({DeviceChoice::Kind::kCuda, count}, communicator);
    });
    ADD_FAILURE() << "there is one GPU more";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUsage);
    EXPECT_EQ(std::string(error.what())
                  .find("rank 0: there is no device cuda:" + std::to_string(count) +
                        " (the last GPU here is cuda:" + std::to_string(count - 1) + ")"),
              0)
        << error.what();
  }
}

TEST(Gpus, HaveMemoryAndAnArchitecture) {
  const GpuMemory memory = gpu_memory(Device::cuda(0));
  EXPECT_GT(memory.available, 0);
  EXPECT_LE(memory.available, memory.total);
  EXPECT_EQ(gpu_architecture(Device::cuda(0)).find("sm_"), 0);
}

// The pool keeps it for other buffers.
TEST(Gpus, MemoryThatWasFreedIsAvailable) {
  constexpr std::int64_t kFloats = 16 << 20;
  const Stream stream(Device::cuda(0));
  const std::int64_t before = gpu_memory(stream.device()).available;
  {
    const Buffer<float> buffer(kFloats, stream);
    EXPECT_LE(gpu_memory(stream.device()).available, before - 4 * kFloats);
  }
  stream.synchronize();
  EXPECT_GT(gpu_memory(stream.device()).available, before - 2 * kFloats);
}

}  // namespace
}  // namespace serrate
