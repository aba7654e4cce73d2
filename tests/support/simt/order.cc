#include "tests/support/simt/order.h"

#include <algorithm>

namespace simt {
namespace {

void raise(std::vector<std::uint32_t>& to, const std::vector<std::uint32_t>& from) {
  if (to.size() < from.size()) to.resize(from.size());
  for (std::size_t i = 0; i < from.size(); ++i) to[i] = std::max(to[i], from[i]);
}

std::uint32_t at(const std::vector<std::uint32_t>& epochs, unsigned thread) {
  return thread < epochs.size() ? epochs[thread] : 0;
}

}  // namespace

void ThreadClock::join(std::uint32_t block, const std::vector<std::uint32_t>& epochs) {
  auto& mine = blocks_[block];
  auto joined = std::make_shared<std::vector<std::uint32_t>>(epochs);
  if (mine) raise(*joined, *mine);
  mine = std::move(joined);
}

void ThreadClock::join(const ThreadClock& other) {
  for (const auto& [block, epochs] : other.blocks_) {
    auto& mine = blocks_[block];
    if (!mine) {
      mine = epochs;
    } else if (mine != epochs) {
      join(block, *epochs);
    }
  }
}

void BlockOrder::begin(std::uint32_t block, unsigned threads) {
  block_ = block;
  threads_ = threads;
  epochs_.assign(threads, 1);
  common_.assign(threads, 0);
  for (const unsigned thread : own_rows_) rows_[thread].clear();
  own_rows_.clear();
  rows_.resize(threads);
  common_others_ = {};
  others_.clear();
}

unsigned BlockOrder::add_asynchronous() {
  epochs_.push_back(1);
  rows_.emplace_back();
  return static_cast<unsigned>(epochs_.size()) - 1;
}

void BlockOrder::begin_asynchronous(unsigned thread, const ThreadClock& clock) {
  rows_[thread].assign(threads_, 0);
  if (const auto* known = clock.of(block_)) raise(rows_[thread], *known);
  others_[thread] = clock;
}

bool BlockOrder::knows(unsigned reader, std::uint32_t block, unsigned thread,
                       std::uint32_t epoch) const {
  const bool knows_common = !is_asynchronous(reader);
  if (block == block_) {
    return reader == thread || (knows_common && epoch <= at(common_, thread)) ||
           (!rows_[reader].empty() && epoch <= at(rows_[reader], thread));
  }
  if (const auto* others = common_others_.of(block); others && knows_common) {
    if (epoch <= at(*others, thread)) return true;
  }
  const auto found = others_.find(reader);
  if (found == others_.end()) return false;
  const auto* others = found->second.of(block);
  return others && epoch <= at(*others, thread);
}

void BlockOrder::barrier() {
  for (const unsigned thread : own_rows_) raise(common_, rows_[thread]);
  std::copy_n(epochs_.begin(), threads_, common_.begin());
  for (unsigned thread = 0; thread < threads_; ++thread) ++epochs_[thread];
  for (const unsigned thread : own_rows_) rows_[thread].clear();
  own_rows_.clear();
  for (auto it = others_.begin(); it != others_.end();) {
    if (is_asynchronous(it->first)) break;  // the last ones
    common_others_.join(it->second);
    it = others_.erase(it);
  }
}

void BlockOrder::barrier(const std::vector<unsigned>& threads) {
  std::vector<std::uint32_t> joined = common_;
  ThreadClock others;
  for (const unsigned thread : threads) {
    if (!rows_[thread].empty()) raise(joined, rows_[thread]);
    const auto found = others_.find(thread);
    if (found != others_.end()) others.join(found->second);
  }
  for (const unsigned thread : threads) joined[thread] = epochs_[thread];
  for (const unsigned thread : threads) {
    own_row(thread) = joined;
    ++epochs_[thread];
    if (!others.empty()) others_[thread] = others;
  }
}

std::vector<std::uint32_t> BlockOrder::known_to(unsigned thread) const {
  if (is_asynchronous(thread)) return rows_[thread];
  std::vector<std::uint32_t> known = common_;
  if (!rows_[thread].empty()) raise(known, rows_[thread]);
  return known;
}

void BlockOrder::publish(unsigned thread, ThreadClock& clock) {
  std::vector<std::uint32_t> known = known_to(thread);
  if (known.size() <= thread) known.resize(thread + 1);
  known[thread] = epochs_[thread]++;
  clock.join(block_, known);
  if (!is_asynchronous(thread)) clock.join(common_others_);
  const auto found = others_.find(thread);
  if (found != others_.end()) clock.join(found->second);
}

void BlockOrder::acquire(unsigned thread, const ThreadClock& clock) {
  if (const auto* mine = clock.of(block_)) raise(own_row(thread), *mine);
  others_[thread].join(clock);
}

std::vector<std::uint32_t>& BlockOrder::own_row(unsigned thread) {
  if (rows_[thread].empty()) {
    rows_[thread] = common_;
    if (!is_asynchronous(thread)) own_rows_.push_back(thread);
  }
  return rows_[thread];
}

}  // namespace simt
