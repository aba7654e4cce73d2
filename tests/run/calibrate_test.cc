#include "src/run/calibrate.h"

#include <gtest/gtest.h>

#include "tests/support/run_ranks.h"

namespace serrate {
namespace {

TEST(Calibrate, MeasuresTheSameTopologyForEveryRank) {
  std::vector<std::string> files(4);
  run_ranks(4, [&](Communicator& communicator) {
    const Stream stream;
    files[communicator.rank()] = planner_topology_to_json(calibrate(2, communicator, stream));
  });
  for (const std::string& file : files) EXPECT_EQ(file, files[0]);
  const PlannerTopology t = planner_topology_from_json(files[0]);
  EXPECT_EQ(t.world_size, 4);
  EXPECT_EQ(t.ranks_per_node, 2);
  // What no machine exceeds: 10 TB/s, 10 s a message.
  for (const double bandwidth : {t.host_bandwidth, t.lookup_bandwidth, t.update_bandwidth,
                                 t.intra_node_bandwidth, t.inter_node_bandwidth}) {
    EXPECT_GT(bandwidth, 0);
    EXPECT_LT(bandwidth, 1e10);
  }
  for (const double latency : {t.intra_node_latency, t.inter_node_latency}) {
    EXPECT_GT(latency, 0);
    EXPECT_LT(latency, 1e4);
  }
  EXPECT_EQ(t.host_bytes[0], t.host_bytes[3]);  // ranks of one machine share it
}

TEST(Calibrate, OneRankExchangesNothing) {
  run_ranks(1, [&](Communicator& communicator) {
    const PlannerTopology t = calibrate(0, communicator, Stream());
    EXPECT_EQ(t.num_nodes(), 1);
    EXPECT_GT(t.lookup_bandwidth, 0);
    EXPECT_GT(t.host_bytes[0], 1 << 20);
  });
}

}  // namespace
}  // namespace serrate
