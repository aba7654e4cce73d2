#include "tests/support/simt/order.h"

#include <algorithm>
#include <functional>

namespace simt {
namespace {

void raise(std::vector<std::uint32_t>& to, const std::vector<std::uint32_t>& from) {
  if (to.size() < from.size()) to.resize(from.size());
  for (std::size_t i = 0; i < from.size(); ++i) to[i] = std::max(to[i], from[i]);
}

// Whether one knows all that the other does.
bool covers(const std::vector<std::uint32_t>& a, const std::vector<std::uint32_t>& b) {
  return a.size() >= b.size() && std::equal(b.begin(), b.end(), a.begin(), std::less_equal<>());
}

Epochs joined(const Epochs& a, const Epochs& b) {
  if (!a || a == b || covers(*b, *a)) return b;
  if (covers(*a, *b)) return a;
  auto both = std::make_shared<std::vector<std::uint32_t>>(*a);
  raise(*both, *b);
  return both;
}

}  // namespace

void ThreadClock::join(std::uint32_t block, const Epochs& epochs) {
  Epochs& mine = blocks_[block];
  mine = joined(mine, epochs);
}

void ThreadClock::join(const ThreadClock& other) {
  for (const auto& [block, epochs] : other.blocks_) join(block, epochs);
}

void ThreadClock::join_others(const ThreadClock& other, std::uint32_t block) {
  for (const auto& [number, epochs] : other.blocks_) {
    if (number != block) join(number, epochs);
  }
}

void BlockOrder::begin(std::uint32_t block, unsigned threads) {
  block_ = block;
  threads_ = threads;
  epochs_.assign(threads, 1);
  common_ = std::make_shared<std::vector<std::uint32_t>>(threads);
  rows_.assign(threads, nullptr);
  own_rows_.clear();
  common_others_ = {};
  others_.clear();
  last_ = {};
}

unsigned BlockOrder::add_asynchronous() {
  epochs_.push_back(1);
  rows_.push_back(std::make_shared<std::vector<std::uint32_t>>());
  return static_cast<unsigned>(epochs_.size()) - 1;
}

void BlockOrder::begin_asynchronous(unsigned thread, const ThreadClock& clock) {
  const Epochs* known = clock.of(block_);
  rows_[thread] = known ? *known : std::make_shared<std::vector<std::uint32_t>>();
  others_[thread] = clock;
}

bool BlockOrder::knows_elsewhere(unsigned reader, std::uint32_t block, unsigned thread,
                                 std::uint32_t epoch) const {
  const auto in = [&](const ThreadClock& clock) {
    const Epochs* epochs = clock.of(block);
    return epochs && thread < (*epochs)->size() && epoch <= (**epochs)[thread];
  };
  if (!is_asynchronous(reader) && in(common_others_)) return true;
  const auto found = others_.find(reader);
  return found != others_.end() && in(found->second);
}

std::vector<std::uint32_t> BlockOrder::known_together(std::span<const unsigned> threads) const {
  const Epochs* last = &known_to(threads.front());
  std::vector<std::uint32_t> known = **last;
  for (const unsigned thread : threads) {
    const Epochs& next = known_to(thread);
    if (next != *last) raise(known, *next);
    last = &next;
  }
  return known;
}

void BlockOrder::barrier() {
  std::vector<std::uint32_t> known = own_rows_.empty() ? *common_ : known_together(own_rows_);
  std::copy_n(epochs_.begin(), threads_, known.begin());
  common_ = std::make_shared<std::vector<std::uint32_t>>(std::move(known));
  for (unsigned thread = 0; thread < threads_; ++thread) ++epochs_[thread];
  for (const unsigned thread : own_rows_) rows_[thread] = nullptr;
  own_rows_.clear();
  for (auto it = others_.begin(); it != others_.end();) {
    if (is_asynchronous(it->first)) break;  // the last ones
    common_others_.join(it->second);
    it = others_.erase(it);
  }
}

void BlockOrder::barrier(std::span<const unsigned> threads) {
  std::vector<std::uint32_t> known = known_together(threads);
  ThreadClock others;
  for (const unsigned thread : threads) {
    known[thread] = epochs_[thread]++;
    const auto found = others_.find(thread);
    if (found != others_.end()) others.join(found->second);
  }
  const Epochs all = std::make_shared<std::vector<std::uint32_t>>(std::move(known));
  for (const unsigned thread : threads) {
    if (!rows_[thread]) own_rows_.push_back(thread);
    rows_[thread] = all;
    if (!others.empty()) others_[thread] = others;
  }
}

void BlockOrder::publish(std::span<const unsigned> threads, ThreadClock& clock) {
  std::vector<std::uint32_t> known = known_together(threads);
  for (const unsigned thread : threads) {
    if (known.size() <= thread) known.resize(thread + 1);
    known[thread] = epochs_[thread]++;
    if (!is_asynchronous(thread)) clock.join(common_others_);
    const auto found = others_.find(thread);
    if (found != others_.end()) clock.join_others(found->second, block_);
  }
  clock.join(block_, std::make_shared<std::vector<std::uint32_t>>(std::move(known)));
}

void BlockOrder::publish_alone(unsigned thread, ThreadClock& clock) const {
  auto known = std::make_shared<std::vector<std::uint32_t>>(thread + 1);
  known->back() = epochs_[thread];
  clock.join(block_, known);
}

void BlockOrder::acquire(unsigned thread, const ThreadClock& clock) {
  if (const Epochs* epochs = clock.of(block_)) learn(thread, *epochs);
  if (clock.knows_others(block_)) others_[thread].join_others(clock, block_);
}

// The threads of a warp, or of a block, learn the same one after another.
void BlockOrder::learn(unsigned thread, const Epochs& epochs) {
  const Epochs& known = known_to(thread);
  if (known != last_.known || epochs != last_.learnt) {
    last_ = {known, epochs, joined(known, epochs)};
  }
  if (!rows_[thread]) own_rows_.push_back(thread);
  rows_[thread] = last_.both;
}

}  // namespace simt
