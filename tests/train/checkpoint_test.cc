#include "src/train/checkpoint.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "src/train/checkpoint_manifest.h"
#include "tests/support/run_ranks.h"
#include "tests/train/training_fixture.h"

namespace serrate {
namespace {

namespace fs = std::filesystem;

constexpr ShardingType kTypes[] = {
    ShardingType::kDataParallel, ShardingType::kTableWise,    ShardingType::kRowWise,
    ShardingType::kColumnWise,   ShardingType::kTableRowWise, ShardingType::kTableColumnWise,
    ShardingType::kGrid,
};

class CheckpointTest : public testing::Test {
 protected:
  CheckpointTest() : directory_(fs::temp_directory_path() / ("serrate_checkpoint_" + name())) {
    fs::remove_all(directory_);
    training_.options.sparse_optimizer.type = SparseOptimizer::kAdam;
  }
  ~CheckpointTest() override { fs::remove_all(directory_); }

  static std::string name() {
    return testing::UnitTest::GetInstance()->current_test_info()->name();
  }

  /// Trains from step `first` (loading what is there when it is above 1) to step `last`, saves when
  /// asked to, and returns the tensors.
  Tensors train(int world_size, ShardingType type, int first, int last, bool save) {
    Tensors tensors;
    const auto tables = training_.tables();
    const int in_node = world_size % 2 == 0 ? 2 : 1;
    ShardingPlan plan{.world_size = world_size, .tables = {}, .ranks_per_node = in_node};
    for (const EmbeddingTable& t : tables) {
      plan.tables.push_back(shard_table(t, type, world_size, world_size - 1, in_node));
    }
    run_ranks(world_size, [&](Communicator& communicator) {
      const Stream stream;
      TrainOptions options = training_.options;
      if (first > 1) options.seed += 1;  // other initial values, which the checkpoint replaces
      TrainState state(tables, plan, options, communicator, stream);
      const CheckpointParts parts{state.embedding, state.encoder.parameters()};
      if (first > 1) {
        EXPECT_EQ(load_checkpoint(directory_, parts, communicator, stream), first - 1);
      }
      for (int step = first; step <= last; ++step) {
        train_step(state, training_.batch(step, communicator.rank(), world_size, stream), step);
      }
      if (save) save_checkpoint(directory_, last, parts, communicator, stream);
      collect(state, tensors);
    });
    return tensors;
  }

  static void damage(const fs::path& file) {
    std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekg(fs::file_size(file) / 2);
    const char byte = static_cast<char>(stream.get() ^ 1);
    stream.seekp(fs::file_size(file) / 2);
    stream.put(byte);
  }

  SmallTraining training_;
  std::string directory_;
};

TEST_F(CheckpointTest, LoadsUnderAnyPlanAndWorldSize) {
  const Tensors saved = train(3, ShardingType::kRowWise, 1, 4, true);
  for (const ShardingType type : kTypes) {
    for (const int world_size : {1, 2, 4}) {
      EXPECT_EQ(train(world_size, type, 5, 4, false), saved) << to_string(type) << world_size;
    }
  }
}

TEST_F(CheckpointTest, EveryPlanSavesTheSameModel) {
  training_.options.model.dropout = 0;
  for (const ShardingType type : kTypes) {
    const Tensors saved = train(4, type, 1, 1, true);
    EXPECT_EQ(train(3, ShardingType::kRowWise, 2, 1, false), saved) << to_string(type);
    fs::remove_all(directory_);
  }
}

TEST_F(CheckpointTest, FallsBackToTheOneBeforeADamagedOne) {
  const Tensors before = train(2, ShardingType::kRowWise, 1, 3, true);
  train(2, ShardingType::kRowWise, 1, 4, true);
  damage(fs::path(directory_) / "step_4" / "rank1.h5");
  EXPECT_EQ(train(2, ShardingType::kRowWise, 4, 3, false), before);  // EXPECTs step 3 inside

  damage(fs::path(directory_) / "step_3" / "rank0.h5");
  EXPECT_THROW(newest_intact_checkpoint(directory_), Error);
}

TEST_F(CheckpointTest, KeepsTheTwoNewestAndIgnoresUnfinishedOnes) {
  for (const int step : {1, 2, 3}) train(1, ShardingType::kTableWise, 1, step, true);
  fs::create_directories(fs::path(directory_) / "step_9");  // no manifest
  fs::create_directories(fs::path(directory_) / "tmp.step_8");
  const auto found = list_checkpoints(directory_);
  ASSERT_EQ(found.size(), 3u);
  EXPECT_EQ(found[0].step, 9);
  EXPECT_EQ(found[1].step, 3);
  EXPECT_EQ(found[2].step, 2);
  EXPECT_EQ(newest_intact_checkpoint(directory_).step, 3);
}

TEST_F(CheckpointTest, RefusesAnotherModelOnEveryRank) {
  train(2, ShardingType::kRowWise, 1, 1, true);
  const auto expect_refusal = [&](const std::string& part) {
    try {
      train(2, ShardingType::kRowWise, 2, 1, false);
      FAIL() << "loaded";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  };
  training_.num_items = 41;
  expect_refusal("rows of table \"item\" are missing");
  training_.num_items = 39;
  expect_refusal("reaches to row 40");
  training_.num_items = 40;
  training_.options.model.num_blocks = 1;
  expect_refusal("dense parameters");
}

TEST(ManifestTest, Crc32cIsTheStandardOne) {
  const auto path = fs::temp_directory_path() / "serrate_crc";
  std::ofstream(path) << "123456789";
  const ManifestFile file = describe_file(path);
  EXPECT_EQ(file.crc32c, 0xE3069283u);  // the check value of CRC-32C (RFC 3720, appendix B.4)
  EXPECT_EQ(file.bytes, 9);
  fs::remove(path);
}

TEST(ManifestTest, RefusesNamesOutsideItsFolder) {
  EXPECT_THROW(manifest_file_from_json(R"({"name": "../rank0.h5", "bytes": 1, "crc32c": 1})"),
               Error);
  EXPECT_THROW(manifest_file_from_json(R"({"name": "rank/../../x.h5", "bytes": 1, "crc32c": 1})"),
               Error);
}

}  // namespace
}  // namespace serrate
