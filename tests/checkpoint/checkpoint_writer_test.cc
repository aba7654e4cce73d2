// When checkpoints are written, what stays of those before, and what is not written.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <limits>
#include <optional>

#include "src/checkpoint/directory_lock.h"
#include "tests/checkpoint/checkpoint_fixture.h"

namespace serrate {
namespace {

namespace fs = std::filesystem;
using testing::message_of;

TEST_F(CheckpointTest, KeepsTheNewestAndRemovesWhatWasLeftHalfWritten) {
  for (const int step : {1, 2, 3}) train_and_save({1, ShardingType::kTableWise}, step);
  fs::create_directories(fs::path(directory_) / "tmp.step_8");
  fs::create_directories(fs::path(directory_) / "step_07");  // no name of ours
  const auto found = list_checkpoints(directory_);
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].step, 3);
  EXPECT_EQ(found[1].step, 2);
  train_and_save({1, ShardingType::kTableWise}, 3);  // once more, in its place
  EXPECT_FALSE(fs::exists(fs::path(directory_) / "tmp.step_8"));
  EXPECT_TRUE(fs::exists(fs::path(directory_) / "step_07"));
  EXPECT_EQ(list_checkpoints(directory_).size(), 2u);
  EXPECT_EQ(load({1, ShardingType::kTableWise}).second, 3);
}

// It would be the oldest, and removed as soon as it was there.
TEST_F(CheckpointTest, SavesNoneBehindANewerOne) {
  for (const int step : {2, 3}) train_and_save({1, ShardingType::kTableWise}, step);
  try {
    train_and_save({2, ShardingType::kRowWise}, 1);
    FAIL() << "it was written";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUsage);
    EXPECT_NE(std::string(error.what())
                  .find("has a checkpoint of step 3, newer than the one to be written, of step 1"),
              std::string::npos)
        << error.what();
  }
  EXPECT_EQ(list_checkpoints(directory_).size(), 2u);
  EXPECT_EQ(load({1, ShardingType::kTableWise}).second, 3);
}

TEST_F(CheckpointTest, ResumingSetsDamagedOnesAside) {
  for (const int step : {1, 2}) train_and_save({1, ShardingType::kTableWise}, step);
  damage(folder(2) / "rank0.h5", 100);
  on_ranks({1, ShardingType::kTableWise}, 3,
           [&](Communicator&, TrainState& state, CheckpointWriter& writer) {
             EXPECT_EQ(writer.resume(checkpoint_state(state), state.stream)->step, 1);
             EXPECT_TRUE(fs::exists(fs::path(directory_) / "damaged.step_2"));
             EXPECT_FALSE(fs::exists(folder(2)));
           });
}

TEST_F(CheckpointTest, WritesTheStateAtTheCallWhileTrainingGoesOn) {
  Tensors at_call;
  on_ranks({3, ShardingType::kRowWise}, 3,
           [&](Communicator&, TrainState& state, CheckpointWriter& writer) {
             steps(state, 1, 2);
             collect(state, at_call);
             writer.start(2, checkpoint_state(state), state.stream);
             EXPECT_TRUE(writer.busy());
             steps(state, 3, 6);
             while (writer.busy()) writer.poll();
             EXPECT_EQ(writer.newest_step(), 2);
           });
  const auto [loaded, step] = load({2, ShardingType::kGrid});
  EXPECT_EQ(step, 2);
  EXPECT_EQ(loaded, at_call);
}

TEST_F(CheckpointTest, OneWaitsForTheOneBefore) {
  on_ranks({2, ShardingType::kRowWise}, 3,
           [&](Communicator&, TrainState& state, CheckpointWriter& writer) {
             for (int step = 1; step <= 3; ++step) {
               steps(state, step, step);
               writer.start(step, checkpoint_state(state), state.stream);
               EXPECT_EQ(writer.newest_step(), step - 1);
             }
             writer.finish();
             EXPECT_EQ(writer.newest_step(), 3);
           });
  EXPECT_EQ(list_checkpoints(directory_).size(), 2u);
}

TEST_F(CheckpointTest, GivenUpHalfWayItLeavesTheOneBefore) {
  const Tensors before = train_and_save({2, ShardingType::kRowWise}, 1);
  on_ranks({2, ShardingType::kRowWise}, 3,
           [&](Communicator&, TrainState& state, CheckpointWriter& writer) {
             steps(state, 1, 2);
             writer.start(2, checkpoint_state(state), state.stream);
           });
  const auto [loaded, step] = load({1, ShardingType::kTableWise});
  EXPECT_EQ(step, 1);
  EXPECT_EQ(loaded, before);
}

TEST_F(CheckpointTest, SavesNoValueThatIsNotFinite) {
  const Tensors before = train_and_save({2, ShardingType::kRowWise}, 1);
  const float bad[] = {std::numeric_limits<float>::infinity(),
                       std::numeric_limits<float>::quiet_NaN()};
  for (const float value : bad) {
    const auto save_with = [&](const std::function<void(TrainState&)>& spoil, bool at_once) {
      return message_of<Error>([&] {
        on_ranks({2, ShardingType::kRowWise}, 3,
                 [&](Communicator& communicator, TrainState& state, CheckpointWriter& writer) {
                   if (communicator.rank() == 1 || communicator.size() == 1) spoil(state);
                   const CheckpointState saved = checkpoint_state(state);
                   if (at_once) {
                     writer.save(2, saved, state.stream);
                   } else {
                     writer.start(2, saved, state.stream);
                   }
                 });
      });
    };
    for (const bool at_once : {true, false}) {
      const std::string message = save_with(
          [&](TrainState& state) {
            const LocalShard local = state.embedding.local_shards().at(0);
            EXPECT_EQ(local.table, "item");
            EXPECT_EQ(local.shard.row_begin, 0);  // first_rank is the last one
            host_view(local.second_moment, state.stream).row(5)[3] = value;
          },
          at_once);
      EXPECT_NE(
          message.find("rank 1: after step 2, row 5 of the second_moment of table \"item\" is"),
          std::string::npos)
          << message;
    }
  }
  const auto [loaded, step] = load({1, ShardingType::kTableWise});
  EXPECT_EQ(step, 1);
  EXPECT_EQ(loaded, before);
  EXPECT_FALSE(fs::exists(unfinished_folder(directory_, 2)));
}

TEST_F(CheckpointTest, SavesNoValueOf16BitsThatIsNotFinite) {
  const auto refusal = [&](DataType data_type, const auto& bad) {
    training_.options.embedding_precision = data_type;
    return message_of<Error>([&] {
      on_ranks({1, ShardingType::kTableWise}, 3,
               [&](Communicator&, TrainState& state, CheckpointWriter& writer) {
                 using T = std::remove_cvref_t<decltype(bad)>;
                 const LocalShard local = state.embedding.local_shards().at(0);
                 host_view(local.weights.as<T>(), state.stream).row(5)[3] = bad;
                 writer.save(2, checkpoint_state(state), state.stream);
               });
    });
  };
  // Numbers that are large in the one and not finite in the other.
  EXPECT_EQ(refusal(DataType::kFloat16, Float16(65504)), "(no exception)");
  EXPECT_EQ(refusal(DataType::kBFloat16, BFloat16(3.3e38f)), "(no exception)");
  constexpr float kInfinite = std::numeric_limits<float>::infinity();
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  for (const float value : {kInfinite, -kInfinite, kNan}) {
    for (const std::string& message : {refusal(DataType::kFloat16, Float16(value)),
                                       refusal(DataType::kBFloat16, BFloat16(value))}) {
      EXPECT_NE(message.find("after step 2, row 5 of the weights of table \"item\" is"),
                std::string::npos)
          << message;
    }
  }
}

/// Files cannot become longer than this while it exists.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : signal_(std::signal(SIGXFSZ, SIG_IGN)) {
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, signal_);
  }

 private:
  rlimit before_{};
  void (*signal_)(int);
};

TEST_F(CheckpointTest, AFailedWriteLeavesTheOnesBeforeAndIsTriedAgain) {
  const Tensors before = train_and_save({2, ShardingType::kRowWise}, 1);
  on_ranks({2, ShardingType::kRowWise}, 3,
           [&](Communicator& communicator, TrainState& state, CheckpointWriter& writer) {
             writer.resume(checkpoint_state(state), state.stream);
             std::optional<FileSizeLimit> full;
             if (communicator.rank() == 0) full.emplace(4096);
             communicator.barrier("full");
             writer.start(2, checkpoint_state(state), state.stream);
             writer.finish();
             EXPECT_EQ(writer.newest_step(), 1);
             EXPECT_FALSE(fs::exists(folder(2)));
             EXPECT_NE(message_of<Error>([&] {
                         writer.save(2, checkpoint_state(state), state.stream);
                       }).find("the checkpoint of step 2 could not be written"),
                       std::string::npos);
             communicator.barrier("not full");
             full.reset();
             communicator.barrier("not full");
             writer.start(3, checkpoint_state(state), state.stream);
             writer.finish();
             EXPECT_EQ(writer.newest_step(), 3);
           });
  EXPECT_EQ(load({1, ShardingType::kTableWise}).second, 3);
  EXPECT_EQ(list_checkpoints(directory_).size(), 2u);
  EXPECT_EQ(load({1, ShardingType::kTableWise}).first, before);  // nothing was trained since
}

TEST_F(CheckpointTest, WhatHasToGoBeforeMayFailIt) {
  on_ranks({2, ShardingType::kRowWise}, 3,
           [&](Communicator&, TrainState& state, CheckpointWriter& writer) {
             writer.set_before_commit([] { throw Error("the log is full"); });
             EXPECT_NE(message_of<Error>([&] {
                         writer.save(2, checkpoint_state(state), state.stream);
                       }).find("rank 0: the log is full"),
                       std::string::npos);
             writer.set_before_commit({});
             writer.save(2, checkpoint_state(state), state.stream);
             EXPECT_EQ(writer.newest_step(), 2);
           });
}

TEST_F(CheckpointTest, HasTheDirectoryAlone) {
  on_ranks(
      {1, ShardingType::kTableWise}, 3,
      [&](Communicator& communicator, TrainState&, CheckpointWriter&) {
        const std::string message =
            message_of<Error>([&] { CheckpointWriter(directory_, 2, communicator); });
        EXPECT_NE(message.find(fmt::format("in use by process {}", getpid())), std::string::npos)
            << message;
      });
  // Free again; and a lock whose directory was renamed keeps nobody from the new one.
  const DirectoryLock old(directory_);
  fs::rename(directory_, directory_ + ".1");
  fs::create_directories(directory_);
  const DirectoryLock fresh(directory_);
}

}  // namespace
}  // namespace serrate
