// Small work, of which a stopwatch says that all calls of a time take a millisecond together.
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <string>
#include <vector>

#include "src/core/gpus.h"
#include "tests/run/calibration_work.h"
#include "tests/support/run_ranks.h"

namespace serrate {
namespace {

TEST(CalibrateDevice, TopologyOfTheGpusThatWereMeasured) {
  std::vector<std::string> files(2);
  std::atomic<int> on_gpus{0}, on_hosts{0};
  run_ranks(2, [&](Communicator& communicator) {
    const Stopwatch stopwatch = [&](const Stream& stream, const std::function<void()>& work) {
      work();
      stream.synchronize();
      ++(stream.device().type == DeviceType::kCuda ? on_gpus : on_hosts);
      return 1.0;
    };
    files[communicator.rank()] = planner_topology_to_json(
        calibrate(0, communicator, Stream(Device::cuda(0)), kSmallWork, stopwatch));
  });
  EXPECT_EQ(files[0], files[1]);
  const PlannerTopology t = planner_topology_from_json(files[0]);
  EXPECT_EQ(t.device, PlannerDevice::kCuda);
  EXPECT_EQ(t.world_size, 2);
  EXPECT_EQ(t.device_bytes,  // ranks of one GPU share it
            std::vector<std::int64_t>(2, gpu_memory(Device::cuda(0)).total / 2));
  // A copy, both directions of the link, lookup, update, and two messages; a copy on the host. Of
  // each 1 + 2 times on 2 ranks.
  EXPECT_EQ(on_gpus, 7 * 3 * 2);
  EXPECT_EQ(on_hosts, 1 * 3 * 2);
  EXPECT_NEAR(t.device_bandwidth, 3 * 2 * (1 << 16), 1);  // read and written
  EXPECT_NEAR(t.host_bandwidth, 3 * 2 * (1 << 14), 1);
  EXPECT_NEAR(t.host_link_bandwidth, 3 * (1 << 14), 1);
  // 64 rows of 512 bytes; 72 words of ids and offsets and 8 bags go at the bandwidth of a copy.
  const double lookup = 64 * 512 / (1.0 / 3 - (72 * 8 + 8 * 512) / t.device_bandwidth);
  EXPECT_NEAR(t.lookup_bandwidth, lookup, 1e-3 * lookup);
  EXPECT_GT(t.update_bandwidth, 0);
  EXPECT_NEAR(t.intra_node_latency, 1.0 / 3, 1e-5);
  // No less than half of the time is what the bytes took.
  EXPECT_NEAR(t.intra_node_bandwidth, 3 * 2 * (1 << 10), 1);
}

}  // namespace
}  // namespace serrate
