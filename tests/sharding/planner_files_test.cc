#include <gtest/gtest.h>

#include "serrate/error.h"
#include "serrate/planner.h"

namespace serrate {
namespace {

constexpr const char* kModel = R"({
  "version": 1,
  "batch_size": 512,
  "dense_bytes": 1000,
  "tables": [
    {
      "name": "item",
      "num_rows": 5000000000,
      "dim": 64,
      "data_type": "fp16",
      "pooling": "sum",
      "weighted": true,
      "optimizer": "row_wise_adagrad",
      "zipf_exponent": 1.2,
      "features": [
        {
          "name": "clicked",
          "pooling_factor": 20.5,
          "num_poolings": 2.0,
          "batch_size": 128
        },
        {
          "pooling_factor": 1.0,
          "num_poolings": 1.0
        }
      ],
      "constraints": {
        "sharding_types": [
          "row_wise",
          "grid"
        ],
        "kernels": [
          "fused",
          "fused_uvm"
        ],
        "ranks": [
          2,
          0
        ],
        "min_columns": 32,
        "group": "clicks"
      }
    },
    {
      "name": "country",
      "num_rows": 40,
      "dim": 16,
      "data_type": "fp32",
      "pooling": "none",
      "weighted": false,
      "optimizer": "none",
      "zipf_exponent": 0.0,
      "features": [
        {
          "pooling_factor": 1.0,
          "num_poolings": 1.0
        }
      ]
    }
  ]
}
)";

TEST(PlannerModelJson, ReadsEveryField) {
  const PlannerModel model = planner_model_from_json(kModel);
  EXPECT_EQ(model.batch_size, 512);
  EXPECT_EQ(model.dense_bytes, 1000);
  ASSERT_EQ(model.tables.size(), 2u);
  const PlannerTable& item = model.tables[0];
  EXPECT_EQ(item.name, "item");
  EXPECT_EQ(item.num_rows, 5'000'000'000);
  EXPECT_EQ(item.dim, 64);
  EXPECT_EQ(item.bytes_per_element, 2);
  EXPECT_TRUE(item.pooled);
  EXPECT_TRUE(item.weighted);
  EXPECT_EQ(item.optimizer, SparseOptimizer::kRowWiseAdagrad);
  EXPECT_EQ(item.zipf_exponent, 1.2);
  ASSERT_EQ(item.features.size(), 2u);
  EXPECT_EQ(item.features[0].name, "clicked");
  EXPECT_EQ(item.features[0].pooling_factor, 20.5);
  EXPECT_EQ(item.features[0].num_poolings, 2);
  EXPECT_EQ(item.features[0].batch_size, 128);
  EXPECT_EQ(item.features[1].batch_size, 0);
  EXPECT_EQ(item.sharding_types, (std::vector{ShardingType::kRowWise, ShardingType::kGrid}));
  EXPECT_EQ(item.kernels, (std::vector{ComputeKernel::kFused, ComputeKernel::kFusedUvm}));
  EXPECT_EQ(item.ranks, (std::vector{2, 0}));
  EXPECT_EQ(item.min_columns, 32);
  EXPECT_EQ(item.group, "clicks");
  EXPECT_FALSE(model.tables[1].pooled);
  EXPECT_FALSE(model.tables[1].optimizer);
}

TEST(PlannerModelJson, CanonicalBytes) {
  EXPECT_EQ(planner_model_to_json(planner_model_from_json(kModel)), kModel);
}

TEST(PlannerModelJson, ShortForm) {
  const PlannerModel model = planner_model_from_json(
      R"({"version": 1, "batch_size": 8, "tables": [{"name": "a", "num_rows": 9, "dim": 4,
          "data_type": "bf16", "pooling": "mean", "features": [{}]}]})");
  EXPECT_EQ(model.dense_bytes, 0);
  EXPECT_EQ(model.tables[0].bytes_per_element, 2);
  EXPECT_TRUE(model.tables[0].pooled);
  EXPECT_EQ(model.tables[0].features[0].pooling_factor, 1);
  EXPECT_EQ(model.tables[0].min_columns, 128);
}

constexpr const char* kTopology = R"({
  "version": 1,
  "device": "cuda",
  "world_size": 4,
  "ranks_per_node": 2,
  "device_memory": "80GiB",
  "host_memory": 549755813888,
  "reserve": 0.25,
  "device_bandwidth": "1.5TB/s",
  "host_bandwidth": 50e9,
  "host_link_bandwidth": "32 GiB/s",
  "lookup_bandwidth": "700GB/s",
  "inter_node_latency": "20us",
  "overrides": [
    {"ranks": [1, 3], "device_memory": "40GiB"},
    {"ranks": [3], "host_memory": "1TiB"}
  ]
})";

TEST(PlannerTopologyJson, ReadsEveryField) {
  const PlannerTopology t = planner_topology_from_json(kTopology);
  constexpr std::int64_t kGiB = std::int64_t{1} << 30;
  EXPECT_EQ(t.device, PlannerDevice::kCuda);
  EXPECT_EQ(t.world_size, 4);
  EXPECT_EQ(t.ranks_per_node, 2);
  EXPECT_EQ(t.device_bytes,
            (std::vector<std::int64_t>{80 * kGiB, 40 * kGiB, 80 * kGiB, 40 * kGiB}));
  EXPECT_EQ(t.host_bytes,
            (std::vector<std::int64_t>{512 * kGiB, 512 * kGiB, 512 * kGiB, 1024 * kGiB}));
  EXPECT_EQ(t.reserve, 0.25);
  EXPECT_EQ(t.device_bandwidth, 1.5e9);
  EXPECT_EQ(t.host_bandwidth, 5e7);
  EXPECT_EQ(t.host_link_bandwidth, 32 * static_cast<double>(kGiB) / 1000);
  EXPECT_EQ(t.lookup_bandwidth, 7e8);
  EXPECT_EQ(t.update_bandwidth, 0);
  EXPECT_EQ(t.inter_node_latency, 0.02);
  EXPECT_EQ(t.intra_node_latency, PlannerTopology{}.intra_node_latency);
  EXPECT_EQ(t.intra_node_bandwidth, PlannerTopology{}.intra_node_bandwidth);
}

TEST(PlannerTopologyJson, DefaultsAreTorchRecs) {
  const PlannerTopology t =
      planner_topology_from_json(R"({"version": 1, "world_size": 2, "ranks_per_node": 2})");
  EXPECT_EQ(t.device_bytes, std::vector<std::int64_t>(2, std::int64_t{32} << 30));
  EXPECT_EQ(t.host_bytes, std::vector<std::int64_t>(2, std::int64_t{128} << 30));
  EXPECT_EQ(t.reserve, 0.15);
  EXPECT_EQ(t.device_bandwidth, 897.0 * (1 << 30) / 1000);
  EXPECT_EQ(t.inter_node_bandwidth, 12.5 * (1 << 30) / 1000);
}

TEST(PlannerTopologyJson, WritesWhatItReads) {
  const std::string written = planner_topology_to_json(planner_topology_from_json(kTopology));
  const PlannerTopology again = planner_topology_from_json(written);
  EXPECT_EQ(planner_topology_to_json(again), written);
  EXPECT_EQ(again.device_bytes, planner_topology_from_json(kTopology).device_bytes);
  EXPECT_EQ(again.host_bytes, planner_topology_from_json(kTopology).host_bytes);
  // Measured figures do not have few digits.
  PlannerTopology odd = again;
  odd.device = PlannerDevice::kCpu;
  odd.device_bytes.assign(4, 0);
  odd.host_bandwidth = 1e7 / 3;
  odd.intra_node_latency = 1e-2 / 3;
  const std::string once = planner_topology_to_json(odd);
  EXPECT_EQ(planner_topology_to_json(planner_topology_from_json(once)), once);
}

struct BadDocument {
  const char* from;
  const char* to;
  const char* message;
};

template <typename Read>
void expect_error(std::string text, const BadDocument& bad, const std::string& document,
                  Read read) {
  const auto at = text.find(bad.from);
  ASSERT_NE(at, std::string::npos) << bad.from;
  text.replace(at, std::string(bad.from).size(), bad.to);
  try {
    read(text);
    FAIL() << "accepted " << bad.to;
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUsage);
    EXPECT_EQ(std::string(error.what()).rfind(document + ": " + bad.message, 0), 0u)
        << error.what();
  }
}

class BadModel : public testing::TestWithParam<BadDocument> {};

TEST_P(BadModel, ErrorNamesTheField) {
  expect_error(kModel, GetParam(), "planner model", planner_model_from_json);
}

INSTANTIATE_TEST_SUITE_P(
    Fields, BadModel,
    testing::Values(
        BadDocument{"\"version\": 1", "\"version\": 2", "version: must be 1 (got 2)"},
        BadDocument{"\"batch_size\": 512,", "", "batch_size: is missing"},
        BadDocument{"\"batch_size\": 512", "\"batch_size\": 0",
                    "batch_size: must be between 1 and"},
        BadDocument{"\"dense_bytes\": 1000", "\"dense_bytes\": -1",
                    "dense_bytes: must be between 0"},
        BadDocument{"\"dense_bytes\"", "\"dense\"", "dense: is not a field of this object"},
        BadDocument{"\"name\": \"item\"", "\"name\": \"country\"",
                    "tables[1].name: is that of tables[0] too"},
        BadDocument{"\"name\": \"item\"", "\"name\": \"\"", "tables[0].name: must not be empty"},
        BadDocument{"\"num_rows\": 5000000000", "\"num_rows\": 0",
                    "tables[0].num_rows: must be between"},
        BadDocument{"\"num_rows\": 5000000000", "\"num_rows\": 1e9",
                    "tables[0].num_rows: must be an integer"},
        BadDocument{"\"num_rows\": 5000000000", "\"num_rows\": 18446744073709551615",
                    "tables[0].num_rows: must be an integer of at most 64 bits"},
        BadDocument{"\"num_rows\": 5000000000", "\"num_rows\": 9000000000000000",
                    "tables[0].num_rows: makes a table of more than 2^53 bytes"},
        BadDocument{"\"dim\": 64", "\"dim\": \"64\"", "tables[0].dim: must be an integer"},
        BadDocument{"\"fp16\"", "\"fp8\"", "tables[0].data_type: \"fp8\" is not a data type"},
        BadDocument{"\"pooling\": \"sum\"", "\"pooling\": \"max\"",
                    "tables[0].pooling: \"max\" is not a pooling"},
        BadDocument{"\"weighted\": true", "\"weighted\": 1",
                    "tables[0].weighted: must be true or false"},
        BadDocument{"\"row_wise_adagrad\"", "\"rowwise\"",
                    "tables[0].optimizer: no optimizer \"rowwise\""},
        BadDocument{"1.2", "-1.2", "tables[0].zipf_exponent: must be between 0 and 10"},
        BadDocument{"20.5", "-1", "tables[0].features[0].pooling_factor: must be between 0"},
        BadDocument{"20.5", "1e400", "number overflow"}, BadDocument{"20.5", "NaN", "parse error"},
        BadDocument{"20.5", "1e300", "tables[0].features[0].pooling_factor: must be between 0"},
        BadDocument{"\"num_poolings\": 2.0", "\"poolings\": 2.0",
                    "tables[0].features[0].poolings: is not a field"},
        BadDocument{"\"batch_size\": 128", "\"batch_size\": 128, \"batch_size\": 128",
                    "tables[0].features[0].batch_size: appears twice"},
        BadDocument{"\"grid\"", "\"row_wise\"",
                    "tables[0].constraints.sharding_types[1]: is in this list twice"},
        BadDocument{"\"grid\"", "\"rows\"",
                    "tables[0].constraints.sharding_types[1]: \"rows\" is not"},
        BadDocument{"\"fused_uvm\"", "7", "tables[0].constraints.kernels[1]: must be a string"},
        BadDocument{"          2,\n          0\n", "",
                    "tables[0].constraints.ranks: must not be empty"},
        BadDocument{"          2,", "-2,", "tables[0].constraints.ranks[0]: must be between 0"},
        BadDocument{"\"min_columns\": 32", "\"min_columns\": 0",
                    "tables[0].constraints.min_columns: must be between 1"},
        BadDocument{"\"group\": \"clicks\"", "\"group\": \"\"",
                    "tables[0].constraints.group: must not be empty"}));

class BadTopology : public testing::TestWithParam<BadDocument> {};

TEST_P(BadTopology, ErrorNamesTheField) {
  expect_error(kTopology, GetParam(), "planner topology", planner_topology_from_json);
}

INSTANTIATE_TEST_SUITE_P(
    Fields, BadTopology,
    testing::Values(
        BadDocument{"\"cuda\"", "\"gpu\"", "device: \"gpu\" is not a device (cuda or cpu)"},
        BadDocument{"\"cuda\"", "\"cpu\"", "device_memory: is not a cpu's"},
        BadDocument{"\"world_size\": 4,", "", "world_size: is missing"},
        BadDocument{"\"world_size\": 4", "\"world_size\": 2000000",
                    "world_size: must be between 1"},
        BadDocument{"\"ranks_per_node\": 2", "\"ranks_per_node\": 3",
                    "ranks_per_node: must divide world_size (4 ranks, got 3)"},
        BadDocument{"\"ranks_per_node\": 2", "\"ranks_per_node\": 8",
                    "ranks_per_node: must be between 1 and 4"},
        BadDocument{"\"80GiB\"", "\"80Gib\"",
                    "device_memory: \"80Gib\" is not an amount of memory"},
        BadDocument{"\"80GiB\"", "\"-80GiB\"",
                    "device_memory: \"-80GiB\" is not an amount of memory"},
        BadDocument{"\"80GiB\"", "\"80GiB extra\"",
                    "device_memory: \"80GiB extra\" is not an amount"},
        BadDocument{"\"80GiB\"", "80.5", "device_memory: must be an integer"},
        BadDocument{"\"80GiB\"", "\"10000TiB\"", "device_memory: must be at most 2^53 bytes"},
        BadDocument{"0.25", "1.0", "reserve: must be a share"},
        BadDocument{"\"1.5TB/s\"", "\"1.5TB\"", "device_bandwidth: \"1.5TB\" is not a bandwidth"},
        BadDocument{"\"1.5TB/s\"", "\"0TB/s\"", "device_bandwidth: \"0TB/s\" is not a bandwidth"},
        BadDocument{"\"1.5TB/s\"", "\"nan GB/s\"",
                    "device_bandwidth: \"nan GB/s\" is not a bandwidth"},
        BadDocument{"\"20us\"", "0.02", "inter_node_latency: must be a string"},
        BadDocument{"\"20us\"", "\"20 min\"", "inter_node_latency: \"20 min\" is not a latency"},
        BadDocument{"50e9", "-1", "host_bandwidth: must be between 1 and 1e+18 bytes per second"},
        BadDocument{"\"20us\"", "\"1e9s\"", "inter_node_latency: \"1e9s\" is not a latency"},
        BadDocument{"\"32 GiB/s\"", "\"1e-9B/s\"",
                    "host_link_bandwidth: \"1e-9B/s\" is not a bandwidth"},
        BadDocument{"[1, 3]", "[]", "overrides[0].ranks: must not be empty"},
        BadDocument{"[1, 3]", "[1, 3, 1]", "overrides[0].ranks[2]: rank 1 has an override already"},
        BadDocument{"[1, 3]", "[4]", "overrides[0].ranks[0]: must be between 0 and 3 (got 4)"},
        BadDocument{", \"device_memory\": \"40GiB\"", "",
                    "overrides[0]: must have a device_memory or a host_memory"}));

TEST(PlannerFiles, NestingIsLimited) {
  const std::string deep = std::string(200'000, '[');
  for (const auto read : {+[](const std::string& t) { planner_model_from_json(t); },
                          +[](const std::string& t) { planner_topology_from_json(t); },
                          +[](const std::string& t) { plan_from_json(t); }}) {
    try {
      read(deep);
      FAIL() << "accepted";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("is nested deeper than 64 levels"),
                std::string::npos);
    }
  }
}

TEST(PlannerMemory, LeavesReserveAndDenseParameters) {
  PlannerTopology t{.world_size = 2, .device_bytes = {1000, 100}, .host_bytes = {400, 400}};
  t.reserve = 0.25;
  const PlannerModel model{.dense_bytes = 20};
  EXPECT_EQ(usable_memory(model, t).device_bytes, (std::vector<std::int64_t>{630, 0}));
  EXPECT_EQ(usable_memory(model, t).host_bytes, (std::vector<std::int64_t>{400, 400}));
  t.device = PlannerDevice::kCpu;
  EXPECT_EQ(usable_memory(model, t).host_bytes, (std::vector<std::int64_t>{180, 180}));
}

// What the readers let through one by one can be too much together: an error, no overflow.
TEST(PlannerSizes, BeyondSixtyFourBitsAreRefused) {
  const PlannerTopology t =
      planner_topology_from_json(R"({"version": 1, "world_size": 4096, "ranks_per_node": 8})");
  const auto error_of = [&](const std::string& table) {
    const PlannerModel model = planner_model_from_json(
        R"({"version": 1, "batch_size": 1024, "tables": [{"name": "a", )" + table + "}]}");
    for (const auto estimator : {PlannerEstimator::kTorchRec, PlannerEstimator::kSerrate}) {
      try {
        plan_sharding(model, t, {.estimator = estimator});
        ADD_FAILURE() << "accepted";
      } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::kUsage);
        EXPECT_NE(std::string(error.what()).find("more than 64 bits count"), std::string::npos);
      }
    }
  };
  error_of(R"("num_rows": 1000000000000, "dim": 1000, "features": [{}])");
  error_of(R"("num_rows": 10, "dim": 1000, "features": [{"pooling_factor": 1e12}])");
  error_of(R"("num_rows": 10, "dim": 1000, "features": [{"batch_size": 1099511627776}])");
  error_of(R"("num_rows": 10, "dim": 100000000, "features": [{"num_poolings": 1000000}])");
}

// FNV-1a of the canonical file, as any other implementation has it: "a" is af63dc4c8601ec8c.
TEST(PlannerHash, IsOfTheCanonicalModel) {
  PlannerModel model = planner_model_from_json(kModel);
  const std::string hash = planner_hash(model);
  EXPECT_EQ(hash.size(), std::string("fnv1a64:0123456789abcdef").size());
  EXPECT_EQ(planner_hash(planner_model_from_json(planner_model_to_json(model))), hash);
  model.tables[0].dim = 65;
  EXPECT_NE(planner_hash(model), hash);
}

}  // namespace
}  // namespace serrate
