#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "comm/exchange.h"
#include "tests/simt/held_stream.h"
#include "tests/support/simt/counters.h"
#include "tests/train/training_fixture.h"

// What of a training step runs beside what, on simulated GPUs.

namespace serrate {

/// The exchanges of another communicator; knows the streams that they were on, and holds that of
/// one operation behind it.
class HoldingCommunicator : public Communicator {
 public:
  explicit HoldingCommunicator(Communicator& moves)
      : Communicator(moves.rank(), moves.size()), moves_(moves) {}

  void hold_behind(Collective collective, std::string_view operation) {
    collective_ = collective, held_ = operation;
    ends_ = false;
  }
  void release() { ends_ = true; }
  simt::StreamId stream_of(const std::string& operation) const { return streams_.at(operation); }

 private:
  void exchange_headers(Exchange& exchange) override { exchange.exchange_headers_by(moves_); }
  void exchange_rows(Exchange& exchange) override {
    exchange.exchange_rows_by(moves_);
    if (exchange.stream.device() == Device::cpu()) return;
    const std::string operation = exchange.call().operation;
    streams_[operation] = id_of(exchange.stream);
    if (exchange.call().collective != collective_ || operation != held_) return;
    held_.clear();
    hold(exchange.stream, ends_);
  }
  void give_up(std::string_view why) noexcept override { moves_.abandon(why); }
  /// The group's communicator holds nothing.
  std::unique_ptr<Communicator> split_group(const std::vector<int>& members) override {
    return moves_.split(members.front());
  }

  Communicator& moves_;
  Collective collective_ = Collective::kBarrier;
  std::string held_;
  std::map<std::string, simt::StreamId> streams_;
  std::atomic<bool> ends_ = false;
};

inline std::uint64_t launches_of(std::string_view kernel) {
  std::uint64_t launches = 0;
  for (const simt::KernelCounters& c : simt::kernel_counters()) {
    if (c.kernel.find(kernel) != std::string::npos) launches += c.launches;
  }
  return launches;
}

/// Collective, on a GPU that the ranks share. A step whose stream is held behind an exchange of the
/// embedding's gradients: whether its dense all-reduce ends. If it does, a step whose dense
/// all-reduce is held: the embedding's update ends, the dense one does not begin.
inline void expect_overlap(ShardingType type, const char* exchange, bool all_reduce_ends,
                           Communicator& ranks) {
  SmallTraining training;
  training.options.model.num_blocks = 1;
  training.options.micro_batch_tokens = 1000;  // all at once
  HoldingCommunicator communicator(ranks);
  const int rank = communicator.rank(), world_size = communicator.size();
  const auto tables = training.tables();
  ShardingPlan plan{.world_size = world_size, .tables = {}, .ranks_per_node = 2};
  for (const EmbeddingTable& table : tables) {
    plan.tables.push_back(shard_table(table, type, world_size, 0, plan.ranks_per_node));
  }
  const Stream stream(Device::cuda(0));
  std::vector<NextItemBatch> batches;
  TrainState state(tables, plan, training.options, communicator, stream);
  const auto queue_step = [&](std::int64_t step) {
    batches.push_back(training.batch(step, rank, world_size, stream));
    const std::int64_t tokens = count_tokens(batches.back(), communicator);
    prepare_batch(state, batches.back());
    train_step(state, batches.back(), tokens, step);
    run_what_can(communicator);
  };
  const auto end_step = [&] {
    communicator.barrier("it was looked at");
    communicator.release();
    stream.synchronize();
    communicator.barrier("the step is done");
  };

  communicator.hold_behind(Collective::kAllToAll, exchange);
  queue_step(1);
  EXPECT_FALSE(is_idle(stream));
  EXPECT_EQ(is_idle(communicator.stream_of("dense_gradients")), all_reduce_ends);
  end_step();
  if (!all_reduce_ends) return;

  simt::reset_counters();
  communicator.barrier("nothing was counted");
  communicator.hold_behind(Collective::kAllGather, "dense_gradients");
  queue_step(2);
  const std::uint64_t updates = launches_of("update_rows");
  EXPECT_GT(updates, 0u);
  EXPECT_EQ(launches_of("AdamWStep"), 0u);
  end_step();
  EXPECT_EQ(launches_of("update_rows"), updates);
  EXPECT_GT(launches_of("AdamWStep"), 0u);
}

}  // namespace serrate
