#include "tests/run/trainer_fixture.h"

#include <sched.h>

#include <algorithm>
#include <thread>

namespace serrate {
namespace {

namespace fs = std::filesystem;
using testing::message_of;
using testing::read_file;

TEST_F(TrainerTest, InPiecesItIsTheSameTraining) {
  train(in("whole"));
  for (const std::int64_t steps : {3, 4, 9, 12}) {
    EXPECT_TRUE(train(to(steps)).done);
    EXPECT_EQ(lines().steps, numbers(1, steps));
  }
  EXPECT_EQ(lines().losses, read_lines(temporary_.file("whole/metrics.jsonl")).losses);
  EXPECT_EQ(read_file(file_of(12)),
            read_file(temporary_.file("whole/checkpoint/step_12/rank0.h5")));
  const auto seconds = lines().seconds;
  EXPECT_TRUE(std::ranges::is_sorted(seconds));
}

TEST_F(TrainerTest, WithTablesOf16BitsInPiecesItIsTheSameTraining) {
  options_.embedding_precision = DataType::kBFloat16;
  train(in("whole"));
  for (const std::int64_t steps : {5, 12}) EXPECT_TRUE(train(to(steps)).done);
  EXPECT_EQ(lines().losses, read_lines(temporary_.file("whole/metrics.jsonl")).losses);
  EXPECT_EQ(read_file(file_of(12)),
            read_file(temporary_.file("whole/checkpoint/step_12/rank0.h5")));
  options_.embedding_precision = DataType::kFloat32;
  const std::string message = message_of<Error>([&] { train(to(13)); });
  EXPECT_NE(message.find("--embedding-precision"), std::string::npos) << message;
}

TEST_F(TrainerTest, OnOtherRanksAndPlansItIsTheSameTraining) {
  train(in("whole"));
  train(to(3), 3);
  TrainOptions planned = to(7);
  planned.plan = "auto";
  planned.sharding_types = {"column_wise"};
  planned.threads = 2;
  train(planned, 2);
  planned.sharding_types = {"row_wise"};
  planned.steps = 12;
  EXPECT_EQ(train(planned, 4).first_step, 8);
  EXPECT_EQ(lines().steps, numbers(1, 12));
  const auto whole = read_lines(temporary_.file("whole/metrics.jsonl")).losses;
  const auto parts = lines().losses;
  for (std::size_t i = 0; i < whole.size(); ++i) {
    EXPECT_NEAR(parts[i], whole[i], 1e-5 * whole[i]) << i;
  }
}

TEST_F(TrainerTest, ReproducibleRunsAreTheSameBitsInPiecesOnAnyRanks) {
  options_.reproducible = true;
  train(in("whole"), 2);
  train(to(3), 3);
  train(to(8), 1);
  train(to(12), 4);
  EXPECT_EQ(lines().losses, read_lines(temporary_.file("whole/metrics.jsonl")).losses);
}

TEST_F(TrainerTest, EpochsMayBecomeMoreAndFewerLeaveNothingToDo) {
  options_.steps = 0;
  options_.epochs = 1;
  train(options_);
  const std::int64_t epoch = lines().steps.back();
  EXPECT_EQ(train(options_).first_step, 0);
  options_.epochs = 2;
  const Outcome more = train(options_);
  EXPECT_TRUE(more.done);
  EXPECT_EQ(more.first_step, epoch + 1);
  EXPECT_EQ(lines().steps, numbers(1, 2 * epoch));
  options_.epochs = 1;
  const Outcome fewer = train(options_);
  EXPECT_TRUE(fewer.done);
  EXPECT_EQ(fewer.first_step, 0);
  EXPECT_EQ(lines().steps, numbers(1, 2 * epoch));
}

TEST_F(TrainerTest, StoppedItSavesAndGoesOn) {
  const Outcome stopped = train(options_, 2, [](std::int64_t step, std::atomic<bool>& stop) {
    if (step == 4) stop = true;  // looked at when the next step is done
  });
  EXPECT_FALSE(stopped.done);
  EXPECT_EQ(checkpoints(), (std::vector<std::int64_t>{5}));
  EXPECT_EQ(lines().steps, numbers(1, 5));
  EXPECT_EQ(train(options_).first_step, 6);
}

TEST_F(TrainerTest, WhatComesAfterTheCheckpointIsDoneAgain) {
  train(in("whole"));
  train(to(4));
  // A crash in step 9, with no checkpoint after step 4.
  EXPECT_THROW(train(options_, 1,
                     [](std::int64_t step, std::atomic<bool>&) {
                       if (step == 9) throw Crash();
                     }),
               Crash);
  EXPECT_EQ(lines().steps, numbers(1, 9));
  EXPECT_EQ(train(options_).first_step, 5);
  EXPECT_EQ(lines().steps, numbers(1, 12));
  EXPECT_EQ(lines().losses, read_lines(temporary_.file("whole/metrics.jsonl")).losses);
}

TEST_F(TrainerTest, RefusesByNameWhatWouldMakeItAnotherTraining) {
  train(to(2));
  const auto refused = [&](const char* name, const std::function<void(TrainOptions&)>& change) {
    TrainOptions options = options_;
    change(options);
    std::string message = message_of<Error>([&] { train(options); });
    EXPECT_TRUE(message.starts_with(fmt::format("--{} ", name))) << message;
    return message;
  };
  const std::string message = refused("batch-size", [](TrainOptions& o) { o.batch_size = 17; });
  EXPECT_NE(message.find("--batch-size is 17, but the run in"), std::string::npos) << message;
  EXPECT_NE(message.find("was begun with 16"), std::string::npos) << message;
  refused("seed", [](TrainOptions& o) { o.seed = 6; });
  refused("negatives", [](TrainOptions& o) { o.negatives = 21; });
  refused("split", [](TrainOptions& o) { o.split = "last-basket"; });
  refused("windows", [](TrainOptions& o) { o.windows = TrainingWindows::kLatest; });
  refused("reproducible", [](TrainOptions& o) { o.reproducible = true; });
  refused("learning-rate", [](TrainOptions& o) { o.dense_optimizer.learning_rate = 0.1f; });
  refused("beta1", [](TrainOptions& o) { o.dense_optimizer.beta1 = 0.8f; });
  refused("beta2", [](TrainOptions& o) { o.dense_optimizer.beta2 = 0.99f; });
  refused("eps", [](TrainOptions& o) { o.dense_optimizer.eps = 1e-6f; });
  refused("embedding-beta1", [](TrainOptions& o) { o.sparse_optimizer.beta1 = 0.8f; });
  refused("embedding-beta2", [](TrainOptions& o) { o.sparse_optimizer.beta2 = 0.99f; });
  refused("embedding-eps", [](TrainOptions& o) { o.sparse_optimizer.eps = 1e-6f; });
  refused("optimizer", [](TrainOptions& o) { o.sparse_optimizer.type = SparseOptimizer::kAdam; });
  refused("invalid-ids", [](TrainOptions& o) { o.invalid_ids = InvalidIds::kOov; });
  refused("dim", [](TrainOptions& o) { o.model.dim = 16; });
  refused("blocks", [](TrainOptions& o) { o.model.num_blocks = 2; });
  refused("heads", [](TrainOptions& o) { o.model.num_heads = 1; });
  refused("max-length", [](TrainOptions& o) { o.model.max_length = 19; });
  refused("dropout", [](TrainOptions& o) { o.model.dropout = 0.1f; });
  refused("activation", [](TrainOptions& o) { o.model.activation = Activation::kRelu; });
  refused("l2-normalize", [](TrainOptions& o) { o.model.l2_normalize = true; });
  refused("features", [](TrainOptions& o) { o.model.features = {"category"}; });
  EXPECT_EQ(lines().steps, numbers(1, 2));  // nothing was touched

  const std::string other = temporary_.file("other.h5");
  generate({.output = other, .users = 60, .items = 50, .events = 1500, .seed = 4});
  EXPECT_NE(refused("data", [&](TrainOptions& o) { o.data = other; }).find("digest"),
            std::string::npos);
  // The same dataset elsewhere is the same.
  fs::rename(data_, temporary_.file("moved.h5"));
  options_.data = temporary_.file("moved.h5");
  EXPECT_EQ(train(options_).first_step, 3);
}

TEST_F(TrainerTest, SavesNothingThatIsNotFinite) {
  TrainOptions wild = in("wild");
  wild.steps = 1;
  wild.dense_optimizer.learning_rate = 1e38f;
  const std::string message = message_of<Error>([&] { train(wild, 2); });
  EXPECT_NE(message.find("diverged"), std::string::npos) << message;
  EXPECT_TRUE(list_checkpoints(wild.output + "/checkpoint").empty());
}

TEST_F(TrainerTest, RanksHaveToAgree) {
  const auto message = [&](const std::function<void(TrainOptions&)>& change) {
    return message_of<Error>([&] {
      run_ranks(3, [&](Communicator& communicator) {
        TrainOptions options = options_;
        if (communicator.rank() == 2) change(options);
        Trainer trainer(options, communicator);
      });
    });
  };
  const std::string option = message([](TrainOptions& o) { o.model.dropout = 0.3f; });
  EXPECT_NE(option.find("dropout"), std::string::npos) << option;
  EXPECT_NE(option.find("rank 2"), std::string::npos) << option;

  // Other content under the same name, as on machines that each have a disk of their own: every
  // rank is a thread with a working directory of its own.
  for (const int rank : {0, 1}) {
    fs::create_directory(temporary_.file(fmt::format("{}", rank)));
    generate({.output = temporary_.file(fmt::format("{}/data.h5", rank)),
              .users = 60,
              .items = 50,
              .events = 1500,
              .seed = static_cast<std::uint64_t>(rank)});
  }
  options_.data = "data.h5";
  std::string data;
  std::thread([&] {
    data = message_of<Error>([&] {
      run_ranks(2, [&](Communicator& communicator) {
        ASSERT_EQ(unshare(CLONE_FS), 0);
        fs::current_path(temporary_.file(fmt::format("{}", communicator.rank())));
        Trainer trainer(options_, communicator);
      });
    });
  }).join();
  EXPECT_NE(data.find("rank 1 differs from rank 0 in the contents of --data: "), std::string::npos)
      << data;
}

TEST_F(TrainerTest, ALoopOfItsOwnSavesWhatEvaluateNeeds) {
  run_ranks(2, [&](Communicator& communicator) {
    Trainer trainer(options_, communicator);
    for (int i = 0; i < 3; ++i) trainer.step();
    trainer.save();
    trainer.save();  // once is enough
  });
  EXPECT_EQ(checkpoints(), (std::vector<std::int64_t>{3}));
  fs::remove(run_ + "/config.json");  // is for people
  run_ranks(2, [&](Communicator& communicator) {
    EvaluateOptions evaluation{.data = data_, .model = run_};
    EXPECT_EQ(evaluate(evaluation, communicator).users, 60);
    evaluation.filter_seen = communicator.rank() == 1;
    const std::string message = message_of<Error>([&] { evaluate(evaluation, communicator); });
    EXPECT_NE(message.find("filter-seen"), std::string::npos) << message;
    EXPECT_NE(message.find("rank 1"), std::string::npos) << message;
  });
  const std::string other = temporary_.file("other.h5");
  generate({.output = other, .users = 60, .items = 50, .events = 1500, .seed = 4});
  const std::string message = message_of<Error>(
      [&] { run_ranks(2, [&](Communicator& c) { evaluate({.data = other, .model = run_}, c); }); });
  EXPECT_NE(message.find("--data " + other + " has the digest"), std::string::npos) << message;
}

TEST_F(TrainerTest, IsEvaluatedAndDescribedWhileItTrains) {
  train(to(1));
  options_.checkpoint_every = "1";
  options_.keep_checkpoints = 1;
  options_.steps = 400;
  std::atomic<bool> trained{false};
  std::thread training([&] {
    train(options_);
    trained = true;
  });
  int evaluations = 0;
  do {
    run_ranks(2, [&](Communicator& c) {
      EXPECT_EQ(evaluate({.data = data_, .model = run_}, c).users, 60);
    });
    for (int i = 0; i < 10; ++i) {
      const RunReport report = describe_run(run_);
      EXPECT_GT(report.num_intact, 0) << report.text;
      EXPECT_EQ(report.num_damaged, 0) << report.text;
    }
    ++evaluations;
  } while (!trained);
  training.join();
  EXPECT_GT(evaluations, 0);
}

}  // namespace
}  // namespace serrate
