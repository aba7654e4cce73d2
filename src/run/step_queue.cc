#include "src/run/step_queue.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "serrate/error.h"
#include "src/train/step_report.h"

namespace serrate {

// What is wrong with it waits in state_.ahead, the same on every rank.
void StepQueue::prepare_next() {
  state_.times.start(state_.stream);
  try {
    next_ = next_batch_();
  } catch (const Error& error) {
    state_.embedding.announce_failure(error, state_.ahead);
    return;
  }
  state_.times.lap("reader", state_.stream);
  prepare_batch(state_, *next_);
}

void StepQueue::check_next() const {
  if (const auto failure = state_.ahead.failure()) throw Error(*failure);
}

void StepQueue::add(std::int64_t step, bool has_next) {
  check_next();
  if (!next_) {
    prepare_next();
    check_next();
    next_tokens_ = count_tokens(*next_, state_.communicator);
  }
  // A step that could not be queued whole leaves its batch here: the device may be at work on it.
  train_step(state_, *next_, next_tokens_, step);
  Step added{.number = step,
             .batch = std::move(*next_),
             .tokens = next_tokens_,
             .is_done = Event(state_.stream.device())};
  next_.reset();
  added.is_done.record(state_.stream);
  dropped_events_ += added.batch.dropped_events;
  steps_.push_back(std::move(added));
  if (has_next) prepare_next();
}

std::optional<StepResult> StepQueue::report(std::size_t most, std::span<std::int64_t> words) {
  const Step* const oldest = steps_.size() > most ? &steps_.front() : nullptr;
  std::vector<double> losses;
  if (oldest) {
    // Mostly it is: the counts of the next batch come when the step before has ended.
    if (!oldest->is_done.is_reached()) oldest->is_done.synchronize();
    losses = share_losses(state_, oldest->batch, oldest->number);
  }
  state_.times.start(state_.stream);
  const StepTotals totals = exchange_reports(
      {.losses = losses, .next_tokens = next_ ? next_->num_tokens() : 0, .words = words},
      state_.communicator);
  state_.times.lap("step report", state_.stream);
  next_tokens_ = totals.next_tokens;
  std::ranges::copy(totals.words, words.begin());
  if (!oldest) return std::nullopt;
  const StepResult result{.step = oldest->number,
                          .epoch = oldest->batch.epoch,
                          .loss = mean_loss(totals.loss, oldest->tokens),
                          .tokens = oldest->tokens};
  steps_.pop_front();
  return result;
}

}  // namespace serrate
