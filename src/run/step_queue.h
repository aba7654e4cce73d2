#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <span>

#include "serrate/event.h"
#include "serrate/trainer.h"
#include "src/train/next_item_batch.h"
#include "src/train/train_step.h"

namespace serrate {

/// The steps of a training that are on their way, the oldest first. Behind each the batch of the
/// next is prepared. All calls that do something are collective.
class StepQueue {
 public:
  /// `next_batch` makes the batches in their order.
  StepQueue(TrainState& state, std::function<NextItemBatch()> next_batch)
      : state_(state), next_batch_(std::move(next_batch)) {}

  /// Queues step `step`, and prepares the batch of the one after it if `has_next`. An Error, the
  /// same on all ranks, if the batch of the step is wrong or could not be made; then nothing is
  /// queued.
  void add(std::int64_t step, bool has_next);
  /// Whether the next add() throws, so that the steps before it can be reported first.
  bool next_is_wrong() const { return state_.ahead.failure().has_value(); }
  /// None waits to be reported.
  bool empty() const { return steps_.empty(); }

  /// The one host collective behind a step: the loss of the oldest step if more than `most` are
  /// queued; with it go, of the next batch, what the next step has to know, and `words`, which
  /// become the sums over the ranks. The loss may be nan.
  std::optional<StepResult> report(std::size_t most, std::span<std::int64_t> words);

  /// Events dropped from the batches of the steps that were added, on this rank.
  std::int64_t dropped_events() const { return dropped_events_; }

 private:
  /// A step with what the device needs until it is done.
  struct Step {
    std::int64_t number;
    NextItemBatch batch;
    std::int64_t tokens;  // of all ranks
    Event is_done;
  };

  void prepare_next();
  void check_next() const;

  TrainState& state_;
  std::function<NextItemBatch()> next_batch_;
  std::deque<Step> steps_;
  std::optional<NextItemBatch> next_;  // prepared for the next step
  std::int64_t next_tokens_ = 0;       // its tokens on all ranks
  std::int64_t dropped_events_ = 0;
};

}  // namespace serrate
