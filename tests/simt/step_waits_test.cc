// What a training on a GPU waits for and copies back, step by step: the counts of the next batch,
// and losses; what it launches; and what waits for it.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <iostream>
#include <map>
#include <string>
#include <vector>

#include "serrate/buffer.h"
#include "serrate/kernels/attention.h"
#include "serrate/trainer.h"
#include "src/checkpoint/folder.h"
#include "src/data/dataset_writer.h"
#include "src/data/generate.h"
#include "tests/support/run_ranks.h"
#include "tests/support/seal.h"
#include "tests/support/simt/counters.h"
#include "tests/support/simt/library.h"
#include "tests/support/simt/stream.h"
#include "tests/support/temporary_folder.h"

namespace serrate {
namespace {

using testing::message_of;
using testing::TemporaryFolder;

class StepWaitsTest : public ::testing::Test {
 protected:
  StepWaitsTest() {
    generate({.output = options_.data = temporary_.file("data.h5"),
              .users = 20,
              .items = 30,
              .events = 300,
              .seed = 3});
    options_.output = temporary_.file("run");
    options_.device = "cuda";
    options_.steps = 3;
    options_.batch_size = 4;
    options_.negatives = 5;
    options_.dense_optimizer.eps = 1e-4f;  // see SmallTraining
    options_.model = {.dim = 8, .num_blocks = 1, .num_heads = 2, .max_length = 8};
  }

  /// What each step reported, on rank 0.
  std::vector<StepResult> train(
      const TrainOptions& options, int ranks,
      const std::function<void(std::int64_t step, std::atomic<bool>& stop)>& after_step = {}) {
    std::vector<StepResult> results;
    run_ranks(ranks, [&](Communicator& communicator) {
      Trainer trainer(options, communicator);
      std::atomic<bool> stop{false};
      trainer.run(stop, [&](const StepResult& result) {
        if (communicator.rank() > 0) return;
        results.push_back(result);
        if (after_step) after_step(result.step, stop);
      });
    });
    return results;
  }
  std::vector<std::int64_t> checkpoints(const TrainOptions& options) const {
    std::vector<std::int64_t> steps;
    for (const auto& c : list_checkpoints(options.output + "/checkpoint")) steps.push_back(c.step);
    return steps;
  }

  TemporaryFolder temporary_;
  TrainOptions options_;
};

struct Count {
  std::uint64_t waits, copies;
};
Count count_so_far() {
  return {simt::host_synchronizations(), simt::copies_to_host()};
}

TEST_F(StepWaitsTest, AStepWaitsForTheCountsOfTheNextBatchAlone) {
  std::vector<Count> counts;
  options_.steps = 8;
  train(options_, 1, [&](std::int64_t, std::atomic<bool>&) { counts.push_back(count_so_far()); });
  ASSERT_EQ(counts.size(), 8u);
  // Step k is reported when step k + 1 is queued and batch k + 2 prepared; buffers have grown by
  // then, and the last two have no batch after them.
  for (std::size_t step = 3; step < 6; ++step) {
    EXPECT_EQ(counts[step].waits - counts[step - 1].waits, 1u) << step;
    EXPECT_EQ(counts[step].copies - counts[step - 1].copies, 2u) << step;  // and the losses
  }
}

using Kernels = std::map<std::string, simt::KernelCounters>;

/// What ran since reset_counters().
Kernels kernels_run() {
  Kernels kernels;
  for (const simt::KernelCounters& c : simt::kernel_counters()) kernels[c.kernel] = c;
  return kernels;
}

/// What causal self-attention of one head in bfloat16 launches, forward and backward.
Kernels kernels_of_attention(std::int64_t head_dim) {
  constexpr std::int64_t kLength = 5;
  const Stream stream(Device::cuda(0));
  const std::vector<std::int64_t> offsets{0, kLength};
  const Buffer<std::int64_t> on_device(offsets, stream);
  auto tokens = Buffer<BFloat16>::zeros(kLength * head_dim, stream);
  Buffer<BFloat16> results[]{
      Buffer<BFloat16>(tokens.size(), stream), Buffer<BFloat16>(tokens.size(), stream),
      Buffer<BFloat16>(tokens.size(), stream), Buffer<BFloat16>(tokens.size(), stream)};
  Buffer<float> lse(kLength, stream);
  const auto heads = [&](Buffer<BFloat16>& rows) {
    return DeviceHeads<BFloat16>{rows.device_data(), head_dim, head_dim};
  };
  AttentionForward args;
  args.q = args.k = args.v = heads(tokens);
  args.out = heads(results[0]);
  args.lse = lse.span();
  args.query_offsets = args.key_offsets = on_device.span();
  args.head_dim = head_dim;
  simt::reset_counters();
  jagged_attention_forward(args, stream);
  jagged_attention_backward({.forward = args,
                             .d_out = heads(tokens),
                             .d_q = heads(results[1]),
                             .d_k = heads(results[2]),
                             .d_v = heads(results[3])},
                            stream);
  stream.synchronize();
  return kernels_run();
}

// What CUB launches for a call in CUDA 13, where here a call is one kernel: a sort's histogram, its
// sums, and a pass for each 8 bits (onesweep) of a row's number, 20 for a million.
constexpr std::uint64_t kLaunchesOfSort = 2 + 3;
std::uint64_t real_launches(const std::string& kernel) {
  return kernel.find("radix_sort") != std::string::npos ? kLaunchesOfSort : 1;
}

struct StepLaunches {
  Activation activation;
  double ours;  // outside attention
};
class StepLaunchesTest : public StepWaitsTest,
                         public ::testing::WithParamInterface<StepLaunches> {};
// The products apply relu: a launch less in each block.
INSTANTIATE_TEST_SUITE_P(Activations, StepLaunchesTest,
                         ::testing::Values(StepLaunches{Activation::kGelu, 30},
                                           StepLaunches{Activation::kRelu, 28}));

TEST_P(StepLaunchesTest, InBf16AStepLaunchesTheAttentionOfTensorCores) {
  constexpr std::uint64_t kSteps = 4;
  constexpr std::int64_t kHeadDim = 32, kBlocks = 2;
  options_.steps = 9;
  options_.model = {.dim = kHeadDim,
                    .num_blocks = kBlocks,
                    .num_heads = 1,
                    .feed_forward_dim = 32,
                    .max_length = 8,
                    .activation = GetParam().activation,
                    .precision = Precision::kBf16};
  Kernels launched;
  Count first{}, last{};
  std::uint64_t products = 0;
  train(options_, 1, [&](std::int64_t step, std::atomic<bool>&) {
    if (step == 3) {
      simt::reset_counters();
      first = count_so_far(), products = simt::products_queued();
    }
    if (step == 3 + kSteps) {
      launched = kernels_run();
      last = count_so_far(), products = simt::products_queued() - products;
    }
  });
  EXPECT_EQ(last.waits - first.waits, kSteps);
  EXPECT_EQ(last.copies - first.copies, 2 * kSteps);

  const Kernels of_attention = kernels_of_attention(kHeadDim);
  int on_tensor_cores = 0;
  for (const auto& [name, c] : of_attention) {
    if (c.tensor_core_operations == 0) continue;
    ++on_tensor_cores;
    EXPECT_EQ(launched[name].launches, kSteps * kBlocks) << name;
    EXPECT_GT(launched[name].tensor_core_operations, 0u) << name;
  }
  EXPECT_GE(on_tensor_cores, 2);                  // forward and backward
  EXPECT_EQ(products, kSteps * kBlocks * 4 * 3);  // four layers, forward, for d_x and for d_weight
  std::uint64_t ours = 0, of_cub = 0;
  for (const auto& [name, c] : launched) {
    if (of_attention.contains(name)) continue;
    const std::uint64_t real = real_launches(name);
    (real > 1 ? of_cub : ours) += c.launches * real;
    std::cout << "  " << c.launches << " of " << name << '\n';
  }
  constexpr double kEach = kSteps;
  std::cout << static_cast<double>(ours) / kEach << " launches of our kernels a step outside "
            << "attention, " << static_cast<double>(products) / kEach << " of cuBLASLt's, "
            << static_cast<double>(of_cub) / kEach << " of CUB's\n";
  // Kernels of a batch to come may run ahead of the report of a step, or behind it.
  EXPECT_NEAR(static_cast<double>(ours), GetParam().ours * kEach, kEach - 1);
  EXPECT_NEAR(static_cast<double>(of_cub), kLaunchesOfSort * kEach, kLaunchesOfSort);
}

// The kernels `attend` and `sum_keys` are attention's forward and backward.
TEST_F(StepWaitsTest, InTf32AStepLaunchesTheAttentionOfTensorCores) {
  options_.model = {
      .dim = 32, .num_blocks = 1, .num_heads = 1, .max_length = 8, .precision = Precision::kTf32};
  simt::reset_counters();
  train(options_, 1);
  const Kernels launched = kernels_run();
  for (const std::string kernel : {"attend", "sum_keys"}) {
    const auto found = std::ranges::find_if(launched, [&](const auto& k) {
      return k.first.find(kernel) != std::string::npos && k.second.tensor_core_operations > 0;
    });
    EXPECT_NE(found, launched.end()) << kernel;
  }
}

TEST_F(StepWaitsTest, ItIsTheTrainingOfTheCpu) {
  TrainOptions on_cpu = options_;
  on_cpu.device = "cpu";
  on_cpu.output = temporary_.file("cpu");
  const auto expected = train(on_cpu, 1);
  const auto results = train(options_, 2);
  ASSERT_EQ(results.size(), expected.size());
  for (std::size_t i = 0; i < results.size(); ++i) {
    EXPECT_EQ(results[i].step, expected[i].step);
    EXPECT_EQ(results[i].tokens, expected[i].tokens);
    EXPECT_NEAR(results[i].loss, expected[i].loss, 1e-5 * expected[i].loss) << i;
  }
}

TEST_F(StepWaitsTest, StoppedItHasReportedWhatItSaved) {
  options_.steps = 5;
  const auto whole = train(options_, 1);
  options_.output = temporary_.file("pieces");
  // Step 2 is reported when step 3 is queued; the ranks speak of stopping after step 4.
  auto results = train(options_, 1, [](std::int64_t step, std::atomic<bool>& stop) {
    if (step == 2) stop = true;
  });
  EXPECT_EQ(results.back().step, 4);
  EXPECT_EQ(checkpoints(options_), (std::vector<std::int64_t>{4}));
  for (const StepResult& result : train(options_, 1)) results.push_back(result);
  ASSERT_EQ(results.size(), whole.size());
  for (std::size_t i = 0; i < whole.size(); ++i) {
    EXPECT_EQ(results[i].step, whole[i].step);
    EXPECT_EQ(results[i].loss, whole[i].loss) << i;
  }
}

TEST_F(StepWaitsTest, SavesNothingThatIsNotFinite) {
  options_.checkpoint_every = "2";
  options_.dense_optimizer.learning_rate = 1e38f;  // after step 1 no weight is finite
  std::int64_t last = 0;
  const std::string message = message_of<Error>(
      [&] { train(options_, 1, [&](std::int64_t step, std::atomic<bool>&) { last = step; }); });
  EXPECT_NE(message.find("in step 2 (the training diverged)"), std::string::npos) << message;
  EXPECT_EQ(last, 1);
  EXPECT_TRUE(checkpoints(options_).empty());
}

/// A dataset of 12 users; one of them has the id -1, under a right seal.
void write_bad_dataset(const std::string& path, std::int64_t bad_user) {
  using Ids = std::vector<std::int64_t>;
  const Ids mark{3, 1, 4, 1, 5, 9};
  DatasetWriter writer(path, {.num_users = 12, .num_events = 12 * 6, .features = {{"item", 10}}});
  for (std::int64_t user = 0; user < 12; ++user) {
    const Ids ids = user == bad_user ? mark : Ids(6, user % 10);
    writer.append_user({.timestamps = Ids{0, 1, 2, 3, 4, 5}, .features = {{ids, {}}}});
  }
  writer.commit();
  std::string content = testing::read_file(path);
  const std::string_view bytes(reinterpret_cast<const char*>(mark.data()),
                               mark.size() * sizeof(mark[0]));
  const std::int64_t bad = -1;
  std::memcpy(&content.at(content.find(bytes) + 8), &bad, sizeof(bad));
  testing::write_sealed(path, content);
}

// As on the CPU, where no loss comes late. User 8 is of batch 3.
TEST_F(StepWaitsTest, ABatchThatIsWrongEndsTheTrainingWhenTheStepsBeforeItAreReported) {
  write_bad_dataset(options_.data, /*bad_user=*/8);
  for (const char* const device : {"cpu", "cuda"}) {
    options_.device = device;
    options_.output = temporary_.file(device);
    std::vector<std::int64_t> steps;
    const std::string message = message_of<Error>([&] {
      train(options_, 2, [&](std::int64_t step, std::atomic<bool>&) { steps.push_back(step); });
    });
    EXPECT_NE(message.find("has id -1"), std::string::npos) << message;
    EXPECT_EQ(steps, (std::vector<std::int64_t>{1, 2})) << device;
    const std::string lines = testing::read_file(options_.output + "/metrics.jsonl");
    EXPECT_EQ(std::ranges::count(lines, '\n'), 2) << device;
  }
}

// The checkpoint would be of the step that is on its way.
TEST_F(StepWaitsTest, OnStepDoesNotSave) {
  run_ranks(1, [&](Communicator& communicator) {
    Trainer trainer(options_, communicator);
    const std::atomic<bool> stop{false};
    const std::string message =
        message_of<Error>([&] { trainer.run(stop, [&](const StepResult&) { trainer.save(); }); });
    EXPECT_NE(message.find("save() comes after run() or step()"), std::string::npos) << message;
    EXPECT_EQ(trainer.step().step, 3);
    trainer.save();
  });
  EXPECT_EQ(checkpoints(options_), (std::vector<std::int64_t>{3}));
}

}  // namespace
}  // namespace serrate
