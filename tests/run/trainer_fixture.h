#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "serrate/trainer.h"
#include "src/checkpoint/folder.h"
#include "src/data/generate.h"
#include "tests/run/metrics_lines.h"
#include "tests/support/run_ranks.h"
#include "tests/support/temporary_folder.h"

namespace serrate {

/// Trainings of a small dataset, in a directory.
class TrainerTest : public ::testing::Test {
 protected:
  TrainerTest() {
    generate({.output = data_, .users = 60, .items = 50, .events = 1500, .seed = 3});
    options_.data = data_;
    options_.output = run_;
    options_.steps = 12;
    options_.batch_size = 16;
    options_.negatives = 20;
    options_.seed = 5;
    options_.dense_optimizer.eps = 1e-4f;  // see SmallTraining
    options_.model = {.dim = 8, .num_blocks = 1, .num_heads = 2, .max_length = 20};
  }

  struct Outcome {
    bool done = false;
    std::int64_t first_step = 0;  // that was done; 0 when none was
  };

  /// What `after_step` throws ends the run as a crash would.
  static Outcome train(
      const TrainOptions& options, int ranks = 1,
      const std::function<void(std::int64_t step, std::atomic<bool>& stop)>& after_step = {}) {
    Outcome outcome;
    run_ranks(ranks, [&](Communicator& communicator) {
      Trainer trainer(options, communicator);
      std::atomic<bool> stop{false};
      const bool done = trainer.run(stop, [&](const StepResult& result) {
        if (communicator.rank() > 0) return;
        if (outcome.first_step == 0) outcome.first_step = result.step;
        if (after_step) after_step(result.step, stop);
      });
      if (communicator.rank() == 0) outcome.done = done;
    });
    return outcome;
  }

  TrainOptions to(std::int64_t steps) const {
    TrainOptions options = options_;
    options.steps = steps;
    return options;
  }
  TrainOptions in(const std::string& output) const {
    TrainOptions options = options_;
    options.output = temporary_.file(output);
    return options;
  }
  Lines lines() const { return read_lines(run_ + "/metrics.jsonl"); }
  std::vector<std::int64_t> checkpoints() const {
    std::vector<std::int64_t> steps;
    for (const FoundCheckpoint& c : list_checkpoints(run_ + "/checkpoint")) steps.push_back(c.step);
    return steps;
  }
  std::string file_of(std::int64_t step) const {
    return fmt::format("{}/checkpoint/step_{}/rank0.h5", run_, step);
  }

  static void damage(const std::string& path) {
    std::fstream stream(path, std::ios::in | std::ios::out | std::ios::binary);
    const auto middle = static_cast<std::int64_t>(std::filesystem::file_size(path)) / 2;
    stream.seekg(middle);
    const char byte = static_cast<char>(stream.get() ^ 1);
    stream.seekp(middle);
    stream.put(byte);
  }

  testing::TemporaryFolder temporary_;
  std::string data_ = temporary_.file("data.h5");
  std::string run_ = temporary_.file("run");
  TrainOptions options_;
};

struct Crash : std::runtime_error {
  Crash() : std::runtime_error("a crash") {}
};

}  // namespace serrate
