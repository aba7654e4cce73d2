// What a training leaves in its directory, and finds there.
#include <unistd.h>

#include "src/run/metrics_file.h"
#include "tests/run/trainer_fixture.h"

namespace serrate {
namespace {

namespace fs = std::filesystem;
using testing::message_of;

TEST_F(TrainerTest, LeavesAsManyCheckpointsAsAsked) {
  options_.checkpoint_every = "2";
  options_.keep_checkpoints = 3;
  options_.steps = 1'000'000;
  const Outcome stopped = train(options_, 2, [&](std::int64_t, std::atomic<bool>& stop) {
    if (checkpoints().size() == 3) stop = true;
  });
  EXPECT_FALSE(stopped.done);
  const auto steps = checkpoints();
  ASSERT_EQ(steps.size(), 3u);
  EXPECT_EQ(steps[0], lines().steps.back());
  EXPECT_LT(steps[1], steps[0]);
}

TEST_F(TrainerTest, LinesOfARunWithoutACheckpointAreKeptAside) {
  for (const std::int64_t last : {3, 2}) {
    EXPECT_THROW(train(options_, 1,
                       [&](std::int64_t step, std::atomic<bool>&) {
                         if (step == last) throw Crash();
                       }),
                 Crash);
  }
  EXPECT_EQ(train(options_).first_step, 1);
  EXPECT_EQ(lines().steps, numbers(1, 12));
  EXPECT_EQ(read_lines(run_ + "/metrics.jsonl.1").steps, numbers(1, 3));
  EXPECT_EQ(read_lines(run_ + "/metrics.jsonl.2").steps, numbers(1, 2));
}

TEST_F(TrainerTest, LinesStayWhereOthersWentToAnotherFile) {
  train(to(2));
  TrainOptions elsewhere = to(4);
  elsewhere.metrics = temporary_.file("other.jsonl");
  train(elsewhere);
  for (const std::int64_t steps : {6, 8}) train(to(steps));
  EXPECT_EQ(lines().steps, (std::vector<std::int64_t>{1, 2, 5, 6, 7, 8}));
  EXPECT_EQ(read_lines(elsewhere.metrics).steps, (std::vector<std::int64_t>{3, 4}));
}

TEST_F(TrainerTest, TheLastCheckpointIsNotLostToFilesForPeople) {
  EXPECT_THROW(train(to(4), 1,
                     [&](std::int64_t step, std::atomic<bool>&) {
                       if (step != 2) return;
                       fs::remove(run_ + "/config.json");
                       fs::create_directory(run_ + "/config.json");
                     }),
               Error);
  EXPECT_EQ(checkpoints().size(), 1U);
  EXPECT_TRUE(fs::exists(file_of(4)));
  fs::remove(run_ + "/config.json");
  EXPECT_EQ(train(to(6)).first_step, 5);
}

TEST_F(TrainerTest, ADamagedCheckpointIsPassedOver) {
  train(in("whole"));
  train(to(4));
  train(to(8));
  damage(file_of(8));
  EXPECT_EQ(train(options_).first_step, 5);
  EXPECT_EQ(lines().losses, read_lines(temporary_.file("whole/metrics.jsonl")).losses);
  EXPECT_TRUE(fs::exists(run_ + "/checkpoint/damaged.step_8"));
  for (const std::int64_t step : checkpoints()) damage(file_of(step));
  const std::string message = message_of<Error>([&] { train(to(20)); });
  EXPECT_NE(message.find("no checkpoint is intact"), std::string::npos) << message;
  EXPECT_EQ(lines().steps, numbers(1, 12));
}

TEST_F(TrainerTest, FreshMovesTheRunAside) {
  train(to(4));
  options_.fresh = true;
  options_.model.dim = 16;
  EXPECT_EQ(train(to(3)).first_step, 1);
  EXPECT_EQ(train(to(2)).first_step, 1);
  EXPECT_EQ(lines().steps, numbers(1, 2));
  EXPECT_EQ(read_lines(run_ + ".1/metrics.jsonl").steps, numbers(1, 4));
  EXPECT_EQ(read_lines(run_ + ".2/metrics.jsonl").steps, numbers(1, 3));
  options_.fresh = false;
  EXPECT_EQ(train(to(5)).first_step, 3);
}

TEST_F(TrainerTest, FreshThroughALinkMovesWhatItLeadsTo) {
  train(to(4));
  options_.output = temporary_.file("link");
  fs::create_directory_symlink("run", options_.output);
  options_.fresh = true;
  EXPECT_EQ(train(to(3)).first_step, 1);
  options_.output += "/";
  EXPECT_EQ(train(to(2)).first_step, 1);
  EXPECT_EQ(lines().steps, numbers(1, 2));
  EXPECT_EQ(read_lines(run_ + ".1/metrics.jsonl").steps, numbers(1, 4));
  EXPECT_EQ(read_lines(run_ + ".2/metrics.jsonl").steps, numbers(1, 3));
}

TEST_F(TrainerTest, FreshByAPathThroughTheRun) {
  train(to(4));
  fs::create_directory_symlink("./run/", temporary_.file("link"));
  options_.fresh = true;
  for (const std::string& name : {run_ + "/../run", run_ + "/../link/"}) {
    options_.output = name;
    EXPECT_EQ(train(to(3)).first_step, 1);
  }
  EXPECT_EQ(lines().steps, numbers(1, 3));
  EXPECT_EQ(read_lines(run_ + ".1/metrics.jsonl").steps, numbers(1, 4));
  EXPECT_EQ(read_lines(run_ + ".2/metrics.jsonl").steps, numbers(1, 3));
}

TEST_F(TrainerTest, FreshIsRefusedByAPathThroughFoldersOfTheRun) {
  train(to(4));
  fs::create_directory_symlink("run/checkpoint", temporary_.file("link"));
  fs::create_directory_symlink("run/checkpoint/../../run", temporary_.file("long"));
  fs::create_directory_symlink("run/checkpoint/../..", temporary_.file("around"));
  fs::create_directory_symlink("around/run", temporary_.file("twice"));
  options_.fresh = true;
  for (const char* name :
       {"run/checkpoint/../../run", "link/../../run", "long", "around/run", "twice"}) {
    options_.output = temporary_.file(name);
    const std::string message = message_of<Error>([&] { train(to(2)); });
    EXPECT_NE(message.find("which is moved with the run): give it as " + run_), std::string::npos)
        << name << message;
  }
  EXPECT_FALSE(fs::exists(run_ + ".1"));
  EXPECT_EQ(checkpoints(), (std::vector<std::int64_t>{4}));
}

// "." would lead to the old run under its new name, and the training go on there.
TEST_F(TrainerTest, FreshNeedsTheNameOfTheFolder) {
  train(to(4));
  options_.fresh = true;
  const fs::path before = fs::current_path();
  fs::current_path(run_);
  for (const std::string& name :
       {std::string("."), std::string("./"), std::string("checkpoint/.."), run_ + "/."}) {
    options_.output = name;
    const std::string message = message_of<Error>([&] { train(to(2)); });
    EXPECT_NE(message.find("--fresh: --output "), std::string::npos) << name << message;
    EXPECT_NE(message.find("as in " + run_), std::string::npos) << name << message;
  }
  fs::current_path(before);
  EXPECT_FALSE(fs::exists(run_ + ".1"));
  EXPECT_EQ(checkpoints(), (std::vector<std::int64_t>{4}));
}

TEST_F(TrainerTest, HasItsDirectoryAlone) {
  run_ranks(1, [&](Communicator& communicator) {
    const Trainer first(options_, communicator);
    const std::string message = message_of<Error>([&] { Trainer(options_, communicator); });
    EXPECT_NE(message.find(fmt::format("in use by process {} on ", getpid())), std::string::npos)
        << message;
  });
}

TEST_F(TrainerTest, WritesNothingForPeopleWhereItsMetricsAreInUse) {
  options_.metrics = temporary_.file("shared.jsonl");
  const MetricsFile other(options_.metrics, 0);
  const std::string message = message_of<Error>([&] { train(options_); });
  EXPECT_NE(message.find("is in use by another training"), std::string::npos) << message;
  EXPECT_FALSE(fs::exists(run_ + "/config.json"));
  EXPECT_FALSE(fs::exists(run_ + "/plan.json"));
}

TEST_F(TrainerTest, TheDescriptionShowsDamage) {
  train(to(2));
  train(to(4));
  RunReport report = describe_run(run_);
  EXPECT_EQ(report.num_intact, 2);
  EXPECT_EQ(report.num_damaged, 0);
  damage(file_of(4));
  report = describe_run(run_);
  EXPECT_EQ(report.num_intact, 1);
  EXPECT_EQ(report.num_damaged, 1);
  EXPECT_NE(report.text.find("step 4            DAMAGED"), std::string::npos) << report.text;
  fs::resize_file(run_ + "/config.json", 40);
  fs::resize_file(run_ + "/plan.json", 10);
  report = describe_run(run_);
  EXPECT_EQ(report.num_damaged, 3);
  EXPECT_NE(report.text.find("config.json is DAMAGED"), std::string::npos) << report.text;
  damage(file_of(2));
  EXPECT_EQ(describe_run(run_).num_intact, 0);
}

}  // namespace
}  // namespace serrate
