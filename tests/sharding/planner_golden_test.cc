#include <gtest/gtest.h>

#include <boost/iostreams/copy.hpp>
#include <boost/iostreams/filter/lzma.hpp>
#include <boost/iostreams/filtering_stream.hpp>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "sharding/estimate/estimator.h"
#include "src/core/json.h"

namespace serrate {
namespace {

using nlohmann::json;

json read_golden() {
  const char* path = std::getenv("SERRATE_PLANNER_GOLDEN");
  std::ifstream file(path ? path : SERRATE_TEST_DATA "/torchrec_estimator_golden.json.xz",
                     std::ios::binary);
  boost::iostreams::filtering_istream stream;
  stream.push(boost::iostreams::lzma_decompressor());
  stream.push(file);
  std::stringstream text;
  boost::iostreams::copy(stream, text);
  return parse_json(text.str(), "golden values");
}

PlannerTopology topology_of(const json& c) {
  PlannerTopology t;
  t.device = c["device"] == "cuda" ? PlannerDevice::kCuda : PlannerDevice::kCpu;
  t.world_size = c["world"];
  t.ranks_per_node = c["local"];
  t.device_bandwidth = c["hbm_bw"];
  t.host_bandwidth = c["ddr_bw"];
  t.host_link_bandwidth = c["hbm_to_ddr_bw"];
  t.intra_node_bandwidth = c["intra_bw"];
  t.inter_node_bandwidth = c["inter_bw"];
  return t;
}

PlannerTable table_of(const json& c) {
  PlannerTable t{.name = "t", .num_rows = c["rows"], .dim = c["dim"]};
  t.bytes_per_element = c["elem"];
  t.pooled = c["pooled"];
  t.weighted = c["weighted"];
  for (std::size_t i = 0; i < c["pooling"].size(); ++i) {
    PlannerFeature f{.pooling_factor = c["pooling"][i]};
    if (!c["num_poolings"].is_null()) f.num_poolings = c["num_poolings"][i];
    if (!c["batch_sizes"].is_null()) f.batch_size = c["batch_sizes"][i];
    t.features.push_back(f);
  }
  if (!c["min_partition"].is_null()) t.min_columns = c["min_partition"];
  return t;
}

// Where TorchRec's enumerator puts shard i: {rows, columns}, {first row, first column}.
std::pair<json, json> rectangle_of(const PlannerTable& table, const ShardingOption& option, int i) {
  if (option.type == ShardingType::kDataParallel) return {{table.num_rows, table.dim}, {0, 0}};
  const int row_block = i % option.num_row_blocks;
  const std::int64_t column = i / option.num_row_blocks * option.columns;
  return {{rows_of(table, option, row_block), option.columns},
          {std::min(row_block * option.rows, table.num_rows), column}};
}

// Every value of every shard that TorchRec computed, to 1e-9 of it.
TEST(PlannerGolden, EstimatorIsTorchRecs) {
  const json golden = read_golden();
  ASSERT_FALSE(golden["cases"].empty());
  std::int64_t values = 0, mismatches = 0;
  for (const json& c : golden["cases"]) {
    const PlannerTopology topology = topology_of(c);
    const PlannerTable table = table_of(c);
    const std::string type = c["type"] == "grid_shard" ? "grid" : c["type"];
    const ShardingOption option =
        sharding_option(table, sharding_type_from_string(type),
                        compute_kernel_from_string(c["kernel"]), topology, topology.world_size);
    const auto shards = option.type == ShardingType::kDataParallel
                            ? topology.world_size
                            : option.num_column_blocks * option.num_row_blocks;
    ASSERT_EQ(shards, std::ssize(c["shards"])) << c.dump();
    for (int i = 0; i < shards; ++i) {
      const json& shard = c["shards"][i];
      const auto [size, offset] = rectangle_of(table, option, i);
      EXPECT_EQ(size, shard["size"]) << c.dump();
      if (size[0] > 0) {
        EXPECT_EQ(offset, shard["off"]) << c.dump();
      }
      const ShardEstimate e =
          estimate_shard(PlannerEstimator::kTorchRec, table, option, size[0], topology, c["batch"]);
      const std::pair<const char*, double> computed[] = {
          {"hbm", static_cast<double>(e.device_bytes)},
          {"ddr", static_cast<double>(e.host_bytes)},
          {"fc", e.forward_compute},
          {"fx", e.forward_comms},
          {"bc", e.backward_compute},
          {"bx", e.backward_comms},
          {"idist", e.input_dist},
          {"pf", 0}};  // no kernel here prefetches
      for (const auto& [name, value] : computed) {
        const double expected = shard[name];
        ++values;
        if (std::abs(value - expected) <= 1e-9 * std::abs(expected)) continue;
        if (++mismatches > 20) continue;
        ADD_FAILURE() << name << " is " << value << ", not " << expected << ", shard " << i
                      << " of " << c.dump();
      }
    }
  }
  EXPECT_EQ(mismatches, 0);
  RecordProperty("values", std::to_string(values));
  std::printf("%ld values, %ld mismatches\n", values, mismatches);
}

}  // namespace
}  // namespace serrate
