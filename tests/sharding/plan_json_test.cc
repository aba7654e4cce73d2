#include <gtest/gtest.h>

#include "serrate/error.h"
#include "serrate/sharding_plan.h"

namespace serrate {
namespace {

constexpr const char* kPlan = R"({
  "version": 1,
  "world_size": 2,
  "tables": [
    {
      "table": "items \"new\"",
      "type": "row_wise",
      "shards": [
        {"rank": 0, "rows": [0, 5000000000], "columns": [0, 64]},
        {"rank": 1, "rows": [5000000000, 9000000000], "columns": [0, 64]}
      ]
    },
    {
      "table": "country",
      "type": "table_wise",
      "shards": [
        {"rank": 1, "rows": [0, 40], "columns": [0, 16]}
      ]
    }
  ]
}
)";

TEST(PlanJson, CanonicalBytes) {
  const ShardingPlan plan{
      .world_size = 2,
      .tables = {{"items \"new\"",
                  ShardingType::kRowWise,
                  {{0, 5'000'000'000, 0, 64, 0}, {5'000'000'000, 9'000'000'000, 0, 64, 1}}},
                 {"country", ShardingType::kTableWise, {{0, 40, 0, 16, 1}}}}};
  EXPECT_EQ(plan_to_json(plan), kPlan);
  EXPECT_EQ(plan_from_json(kPlan), plan);
}

TEST(PlanJson, EveryTypeRoundTrips) {
  ShardingPlan plan{.world_size = 4, .tables = {}, .ranks_per_node = 2};
  for (const auto type :
       {ShardingType::kDataParallel, ShardingType::kTableWise, ShardingType::kRowWise,
        ShardingType::kColumnWise, ShardingType::kTableRowWise, ShardingType::kTableColumnWise,
        ShardingType::kGrid}) {
    plan.tables.push_back(
        shard_table({.name = to_string(type), .num_rows = 10, .dim = 16}, type, 4, 0, 2));
  }
  EXPECT_EQ(plan_from_json(plan_to_json(plan)), plan);
}

TEST(PlanJson, ProvenanceAndKernels) {
  ShardingPlan plan{
      .world_size = 1,
      .tables = {{"a", ShardingType::kTableWise, {{0, 3, 0, 4, 0}}, ComputeKernel::kFusedUvm}},
      .ranks_per_node = 1,
      .provenance = PlanProvenance{.serrate = "0.1.0",
                                   .model = "fnv1a64:00000000000000a1",
                                   .topology = "fnv1a64:00000000000000b2",
                                   .objective = "max_rank",
                                   .estimator = "torchrec",
                                   .cost_ms = 1.25,
                                   .bound_ms = 1,
                                   .seed = 18'446'744'073'709'551'615u}};
  const std::string json = plan_to_json(plan);
  EXPECT_EQ(json, R"({
  "version": 1,
  "world_size": 1,
  "ranks_per_node": 1,
  "provenance": {
    "serrate": "0.1.0",
    "model": "fnv1a64:00000000000000a1",
    "topology": "fnv1a64:00000000000000b2",
    "objective": "max_rank",
    "estimator": "torchrec",
    "cost_ms": 1.25,
    "bound_ms": 1.0,
    "gap": 0.25,
    "seed": 18446744073709551615
  },
  "tables": [
    {
      "table": "a",
      "type": "table_wise",
      "kernel": "fused_uvm",
      "shards": [
        {"rank": 0, "rows": [0, 3], "columns": [0, 4]}
      ]
    }
  ]
}
)");
  EXPECT_EQ(plan_from_json(json), plan);
  plan.provenance->bound_ms = 0;  // unknown: no gap
  EXPECT_EQ(plan_from_json(plan_to_json(plan)), plan);
}

TEST(PlanJson, OrderOfFieldsDoesNotMatter) {
  const char* plan = R"({"tables": [{"type": "table_wise", "table": "a", "shards":
      [{"columns": [0, 4], "rows": [0, 3], "rank": 0}]}], "world_size": 1, "version": 1})";
  EXPECT_EQ(plan_from_json(plan),
            (ShardingPlan{1, {{"a", ShardingType::kTableWise, {{0, 3, 0, 4, 0}}}}}));
}

struct BadText {
  const char* from;  // of kPlan, what is replaced
  const char* to;
  const char* message;  // part of the error
};

class BadPlanText : public testing::TestWithParam<BadText> {};

TEST_P(BadPlanText, ErrorNamesTheField) {
  std::string text = kPlan;
  const auto at = text.find(GetParam().from);
  ASSERT_NE(at, std::string::npos);
  text.replace(at, std::string(GetParam().from).size(), GetParam().to);
  try {
    plan_from_json(text);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUsage);
    EXPECT_NE(std::string(error.what()).find(GetParam().message), std::string::npos)
        << error.what();
    EXPECT_EQ(std::string(error.what()).rfind("sharding plan: ", 0), 0u) << error.what();
  }
}

INSTANTIATE_TEST_SUITE_P(
    Fields, BadPlanText,
    testing::Values(
        BadText{"{", "[", "line 2, column 12"},
        BadText{"\"version\": 1,", "", "version: is missing"},
        BadText{"\"version\": 1", "\"version\": 2", "version: must be 1 (got 2)"},
        BadText{"\"version\": 1", "\"version\": \"1\"", "version: must be an integer"},
        BadText{"\"world_size\": 2", "\"world_size\": 2.0", "world_size: must be an integer"},
        BadText{"\"world_size\": 2", "\"world_size\": -1", "world_size: must be between 0 and"},
        BadText{"\"world_size\": 2", "\"world_size\": 3000000000", "(got 3000000000)"},
        BadText{"\"world_size\": 2", "\"worldsize\": 2", "worldsize: is not a field"},
        BadText{"\"world_size\": 2", "\"world_size\": 2, \"world_size\": 2",
                "world_size: appears twice"},
        BadText{"\"type\": \"row_wise\"", "\"type\": \"rowwise\"",
                "tables[0].type: \"rowwise\" is not a sharding type"},
        BadText{"\"type\": \"row_wise\",", "", "tables[0].type: is missing"},
        BadText{"\"table\": \"country\"", "\"table\": 7",
                "tables[1].table: must be a string (got 7)"},
        BadText{"\"table\": \"country\"", "\"table\": \"country\", \"dim\": 4",
                "tables[1].dim: is not a field"},
        BadText{"\"rank\": 1, \"rows\": [0, 40]", "\"rows\": [0, 40]",
                "tables[1].shards[0].rank: is missing"},
        BadText{"\"rank\": 1, \"rows\": [5", "\"rank\": true, \"rows\": [5",
                "tables[0].shards[1].rank: must be an integer"},
        BadText{"\"rank\": 1, \"rows\": [5", "\"rank\": 1, \"rank\": 0, \"rows\": [5",
                "tables[0].shards[1].rank: appears twice"},
        BadText{"[0, 40]", "[0, 40, 41]", "tables[1].shards[0].rows: must be [begin, end] (got 3"},
        BadText{"[0, 40]", "40", "tables[1].shards[0].rows: must be an array (got 40)"},
        BadText{"[0, 40]", "[0, null]", "tables[1].shards[0].rows[1]: must be an integer"},
        BadText{"9000000000]", "9223372036854775808]",
                "tables[0].shards[1].rows[1]: must be an integer of at most 64 bits"},
        BadText{"9000000000]", "90000000000000000000000]",
                "tables[0].shards[1].rows[1]: must be an integer of at most 64 bits"},
        BadText{"\"tables\": [", "\"tables\": 5, \"x\": [", "x: is not a field"}));

TEST(PlanJson, RefusesOtherDocuments) {
  EXPECT_THROW(plan_from_json(""), Error);
  EXPECT_THROW(plan_from_json("[]"), Error);
  EXPECT_THROW(plan_from_json(std::string(kPlan) + "{}"), Error);
  EXPECT_THROW(plan_from_json("{\"version\": 1, \"world_size\": 1, \"tables\": {}}"), Error);
}

}  // namespace
}  // namespace serrate
