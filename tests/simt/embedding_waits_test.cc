// What steps of sharded embeddings wait for on a GPU, and what waits for them.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <iostream>
#include <string>
#include <vector>

#include "serrate/nccl_communicator.h"
#include "tests/embedding/one_table.h"
#include "tests/simt/step_overlap.h"
#include "tests/support/run_ranks.h"
#include "tests/support/simt/counters.h"
#include "tests/support/simt/stream.h"

namespace serrate {
namespace {

constexpr int kRanks = 4;  // on two nodes

/// Ranks that share a GPU.
void run_nccl_ranks(const std::function<void(Communicator&)>& body, int size = kRanks) {
  run_ranks(size, [&](Communicator& threads) {
    body(*make_nccl_communicator(threads.split(0), Device::cuda(0),
                                 {.sharing = GpuSharing::kAllowed}));
  });
}

struct Counts {
  std::uint64_t waits = 0, copies = 0, launches = 0;
};
Counts counts_so_far() {
  Counts counts{simt::host_synchronizations(), simt::copies_to_host(), 0};
  for (const simt::KernelCounters& c : simt::kernel_counters()) counts.launches += c.launches;
  return counts;
}

/// A pooled table of every type of sharding, all with the same bags.
void train_pooled(Communicator& communicator, int warm_up, int steps, Counts& of_steps) {
  std::vector<EmbeddingTable> tables;
  ShardingPlan plan{kRanks, {}, kRanks / 2};
  for (const ShardingType type : kTypes) {
    EmbeddingTable& table = tables.emplace_back(make_table(PoolingType::kMean));
    table.name = to_string(type);
    plan.tables.push_back(shard_table(table, type, kRanks, 0, plan.ranks_per_node));
  }
  const Stream input_stream(Device::cuda(0));
  EmbeddingInput ahead;
  Rank rank(tables, plan, sgd(), communicator, Device::cuda(0));
  const auto send = [&] {
    ahead.send_after(rank.stream);
    rank.embedding.input_dist(items({{0, 3, 1}, {}, {2}}, {}, input_stream), ahead, input_stream);
  };
  const auto all_is_done = [&] {
    rank.stream.synchronize();
    input_stream.synchronize();
    communicator.barrier("all is done");
  };
  send();
  for (int step = 1; step <= warm_up + steps; ++step) {
    rank.exchange.take(ahead, rank.stream);
    rank.look_up(rank.exchange);
    for (std::size_t l = 0; l < tables.size(); ++l) {
      fill_zero(rank.exchange.d_output(static_cast<std::int64_t>(l)).flat(), rank.stream);
    }
    rank.embedding.output_dist_backward(rank.exchange, rank.stream);
    send();
    rank.embedding.update(rank.exchange, step, rank.stream);
    if (step == warm_up) {
      all_is_done();
      if (communicator.rank() == 0) simt::reset_counters(), of_steps = counts_so_far();
      communicator.barrier("counted");
    }
  }
  communicator.barrier("all is queued");
  const Counts queued = counts_so_far();
  communicator.barrier("counted");
  all_is_done();
  if (communicator.rank() == 0) {
    of_steps = {queued.waits - of_steps.waits, queued.copies - of_steps.copies,
                counts_so_far().launches};
  }
  communicator.barrier("counted");
  input_stream.wait_for(rank.stream);
}

TEST(PooledStep, WaitsForTheCountsOfTheNextBatchAlone) {
  constexpr int kSteps = 3;
  Counts counts;
  run_nccl_ranks([&](Communicator& c) { train_pooled(c, /*warm_up=*/3, kSteps, counts); });
  EXPECT_EQ(counts.waits, kSteps * kRanks);
  EXPECT_EQ(counts.copies, kSteps * kRanks);
  const double launches = static_cast<double>(counts.launches) / (kSteps * kRanks);
  std::cout << launches << " launches a step\n";
  EXPECT_LE(launches, 27);  // 26.25, a sort one of them
}

/// Two nodes of two ranks. The ids of the first batch have nothing to wait for, those of the second
/// a step that does not end.
void send_behind_a_step(Communicator& communicator) {
  const EmbeddingTable table = make_table();
  const Device gpu = Device::cuda(0);
  const Stream input_stream(gpu);
  EmbeddingInput ahead;
  Rank rank({table}, plan_of(table, ShardingType::kTableRowWise, communicator.size()), sgd(),
            communicator, gpu);
  rank.set_weights();
  std::atomic<bool> step_ends = false;
  const auto send = [&](std::int64_t item) {
    rank.embedding.input_dist(items({{item}}, {}, input_stream), ahead, input_stream);
    run_what_can(communicator);
  };
  send(1);
  EXPECT_TRUE(is_idle(input_stream));
  rank.exchange.take(ahead, rank.stream);
  hold(rank.stream, step_ends);
  ahead.send_after(rank.stream);
  send(2);
  EXPECT_FALSE(is_idle(input_stream));
  step_ends = true;
  run_what_can(communicator);
  EXPECT_TRUE(is_idle(input_stream));
  rank.exchange.take(ahead, rank.stream);
  rank.look_up(rank.exchange);
  rank.expect_rows({200}, {1});
}

TEST(IdsThroughNodes, AreSentWhenTheStepBeforeIsDone) {
  run_ranks(kRanks, send_behind_a_step);
  run_nccl_ranks(send_behind_a_step);
}

// Under NCCL all collectives of a communicator are in order; those of two have to be.
TEST(DenseAllReduce, IsBesideTheExchangeAndTheUpdateOfTheEmbeddings) {
  using enum ShardingType;
  run_ranks(2, [](Communicator& c) { expect_overlap(kRowWise, "d_negatives", true, c); });
  run_nccl_ranks([](Communicator& c) { expect_overlap(kRowWise, "output_dist_backward", true, c); },
                 2);
  run_ranks(kRanks,
            [](Communicator& c) { expect_overlap(kTableRowWise, "d_negatives", false, c); });
}

}  // namespace
}  // namespace serrate
