#include "src/run/calibrate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "src/run/machines.h"
#include "tests/support/run_ranks.h"
#include "tests/support/temporary_folder.h"

namespace serrate {
namespace {

// On stopwatches by which everything takes a millisecond: whatever is measured, its bytes per
// millisecond. Rank 0's runs twice as fast, so that the slowest rank's time has to be taken.
TEST(Calibrate, DividesWhatWasMovedByTheTimeOfTheSlowestRank) {
  constexpr double kMiB = 1 << 20;
  std::vector<std::string> files(4);
  run_ranks(4, [&](Communicator& communicator) {
    const double ms = communicator.rank() == 0 ? 0.5 : 1;
    files[communicator.rank()] = planner_topology_to_json(
        calibrate(2, communicator, Stream(), calibration_work(DeviceType::kCpu),
                  [ms](const Stream&, const std::function<void()>& work) {
                    work();
                    return ms;
                  }));
  });
  for (const std::string& file : files) EXPECT_EQ(file, files[0]);
  const PlannerTopology t = planner_topology_from_json(files[0]);
  EXPECT_EQ(t.world_size, 4);
  EXPECT_EQ(t.ranks_per_node, 2);
  EXPECT_EQ(t.host_bytes[0], t.host_bytes[3]);  // ranks of one machine share it

  const double copied = 64 * kMiB;  // 32 MiB read and written
  EXPECT_NEAR(t.host_bandwidth, copied, 1e-6 * copied);
  // 2^17 ids in bags of 8, rows of 512 bytes. What is read and written beside the rows, ids,
  // offsets and bags, takes its share of the millisecond at the bandwidth of a copy.
  const double beside = (131'072 + 16'384) * 8 + 16'384 * 512;
  const double lookup = 131'072 * 512 / (1 - beside / copied);
  EXPECT_NEAR(t.lookup_bandwidth, lookup, 1e-6 * lookup);
  // 2^17 draws among as many rows find a share of 1 - 1 / e of them; a row and a cache line of
  // its state are read and written.
  const double update = (1 - std::exp(-1)) * 131'072 * 2 * (512 + 64) / (1 - 8 * kMiB / copied);
  EXPECT_NEAR(t.update_bandwidth, update, 0.01 * update);
  // A message to the one peer takes 1 ms, and so does one of a MiB: no less than half of that is
  // what its bytes took.
  EXPECT_NEAR(t.intra_node_latency, 1, 1e-9);
  EXPECT_NEAR(t.inter_node_latency, 1, 1e-9);
  EXPECT_NEAR(t.intra_node_bandwidth, 2 * kMiB, 1e-6 * kMiB);
  EXPECT_NEAR(t.inter_node_bandwidth, 2 * kMiB, 1e-6 * kMiB);
}

TEST(Calibrate, RanksThatHaveNoRoomAreRefused) {
  CalibrationWork work = calibration_work(DeviceType::kCpu);
  work.message_bytes = std::int64_t{1} << 50;
  const std::string message = testing::message_of<Error>([&] {
    run_ranks(3, [&](Communicator& communicator) { calibrate(0, communicator, Stream(), work); });
  });
  EXPECT_NE(message.find("on each of the 3 ranks of one machine, which has"), std::string::npos)
      << message;
}

TEST(Calibrate, OneRankExchangesNothing) {
  run_ranks(1, [&](Communicator& communicator) {
    const PlannerTopology t =
        calibrate(0, communicator, Stream(), calibration_work(DeviceType::kCpu));
    EXPECT_EQ(t.num_nodes(), 1);
    EXPECT_EQ(t.world_size, 1);
    const PlannerTopology unmeasured = topology_of(find_machines(communicator, Device::cpu()), 0);
    EXPECT_EQ(t.intra_node_bandwidth, unmeasured.intra_node_bandwidth);
    EXPECT_EQ(t.inter_node_bandwidth, unmeasured.inter_node_bandwidth);
    EXPECT_EQ(t.intra_node_latency, unmeasured.intra_node_latency);
    EXPECT_EQ(t.inter_node_latency, unmeasured.inter_node_latency);
  });
}

}  // namespace
}  // namespace serrate
