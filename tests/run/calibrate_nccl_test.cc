// As calibrate_device_test, of ranks that are processes, between which rows go through NCCL. The
// simulated device knows no time: that is the host's.
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <functional>

#include "serrate/mpi_communicator.h"
#include "serrate/nccl_communicator.h"
#include "serrate/planner.h"
#include "src/io/text_file.h"
#include "src/run/machines.h"
#include "tests/run/calibration_work.h"
#include "tests/support/temporary_folder.h"

namespace serrate {
namespace {

double host_time(const Stream& stream, const std::function<void()>& work) {
  using Clock = std::chrono::steady_clock;
  const auto begin = Clock::now();
  work();
  stream.synchronize();
  return std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
}

// As nodes of one rank and as one node: each kind of link is measured, the other keeps its default.
TEST(CalibrateNccl, TheTopologyFileHasTheLinksAndPlansAreMadeOfIt) {
  const Device gpu = Device::cuda(0);
  const auto communicator = make_nccl_communicator(make_mpi_communicator(std::chrono::seconds(60)),
                                                   gpu, {.sharing = GpuSharing::kAllowed});
  const testing::TemporaryFolder temporary;
  const PlannerTopology defaults = topology_of(find_machines(*communicator, gpu), 0);
  const PlannerModel model{
      .tables = {{.name = "item", .num_rows = 100, .dim = 8, .features = {{.pooling_factor = 2}}}},
      .batch_size = 16};
  for (const int ranks_per_node : {1, 2}) {
    const std::string file = temporary.file("topology.json");
    write_text_file(file, planner_topology_to_json(calibrate(ranks_per_node, *communicator,
                                                             Stream(gpu), kSmallWork, host_time)));
    const PlannerTopology t = read_text_file(file, planner_topology_from_json);
    EXPECT_EQ(t.device, PlannerDevice::kCuda);
    EXPECT_EQ(t.world_size, 2);
    EXPECT_EQ(t.ranks_per_node, ranks_per_node);
    const bool one_node = ranks_per_node == 2;
    const auto expect_measured = [](double value, double if_not) {
      EXPECT_TRUE(std::isfinite(value) && value > 0 && value != if_not) << value;
    };
    expect_measured(t.device_bandwidth, defaults.device_bandwidth);
    expect_measured(t.host_bandwidth, defaults.host_bandwidth);
    expect_measured(t.host_link_bandwidth, defaults.host_link_bandwidth);
    expect_measured(t.lookup_bandwidth, 0);
    expect_measured(t.update_bandwidth, 0);
    expect_measured(one_node ? t.intra_node_bandwidth : t.inter_node_bandwidth,
                    one_node ? defaults.intra_node_bandwidth : defaults.inter_node_bandwidth);
    expect_measured(one_node ? t.intra_node_latency : t.inter_node_latency,
                    one_node ? defaults.intra_node_latency : defaults.inter_node_latency);
    EXPECT_EQ(one_node ? t.inter_node_bandwidth : t.intra_node_bandwidth,
              one_node ? defaults.inter_node_bandwidth : defaults.intra_node_bandwidth);
    EXPECT_TRUE(plan_sharding(model, t, {.estimator = PlannerEstimator::kSerrate}).feasible());
  }
}

}  // namespace
}  // namespace serrate
