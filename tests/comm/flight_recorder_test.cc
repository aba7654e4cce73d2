#include "comm/flight_recorder.h"

#include <gtest/gtest.h>

#include "src/core/json.h"

namespace serrate {
namespace {

TEST(FlightRecorder, KeepsTheLastOperationsAndHowFarTheyGot) {
  FlightRecorder recorder(1, 4, Device::cpu());
  for (int i = 0; i < 70; ++i) {
    EXPECT_EQ(recorder.begin("sum \"x\" #" + std::to_string(i + 1), i % 2 ? "0, 1" : "1, 3"), i);
  }
  recorder.done(5);  // is forgotten
  recorder.done(6);
  recorder.queued(69, 12, 34);
  const auto record = parse_json(recorder.to_json("why \"it\" failed"), "record");
  EXPECT_EQ(record["rank"], 1);
  EXPECT_EQ(record["size"], 4);
  EXPECT_EQ(record["device"], "cpu");
  EXPECT_EQ(record["failure"], "why \"it\" failed");
  const auto& operations = record["operations"];
  ASSERT_EQ(operations.size(), 64u);
  for (int i = 0; i < 64; ++i) EXPECT_EQ(operations[i]["number"], i + 6);
  EXPECT_EQ(operations[0]["operation"], "sum \"x\" #7");
  EXPECT_EQ(operations[0]["ranks"], "1, 3");
  EXPECT_EQ(operations[0]["stage"], "done");
  EXPECT_EQ(operations[62]["stage"], "headers");
  EXPECT_TRUE(operations[62]["queued_s"].is_null());
  EXPECT_EQ(operations[63]["stage"], "queued");
  EXPECT_EQ(operations[63]["sent_bytes"], 12);
  EXPECT_EQ(operations[63]["received_bytes"], 34);
  EXPECT_LE(operations[63]["queued_s"], operations[63]["began_s"]);
}

}  // namespace
}  // namespace serrate
