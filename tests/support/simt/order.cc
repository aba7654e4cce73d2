#include "tests/support/simt/order.h"

#include <algorithm>

namespace simt {
namespace {

void raise(std::vector<std::uint32_t>& to, const std::vector<std::uint32_t>& from) {
  for (std::size_t i = 0; i < to.size(); ++i) to[i] = std::max(to[i], from[i]);
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
  epochs_.assign(threads, 1);
  common_.assign(threads, 0);
  for (const unsigned thread : own_rows_) rows_[thread].clear();
  own_rows_.clear();
  rows_.resize(threads);
  common_others_ = {};
  others_.clear();
}

bool BlockOrder::knows(unsigned reader, std::uint32_t block, unsigned thread,
                       std::uint32_t epoch) const {
  if (block == block_) {
    return reader == thread || epoch <= common_[thread] ||
           (!rows_[reader].empty() && epoch <= rows_[reader][thread]);
  }
  if (const auto* others = common_others_.of(block)) {
    if (epoch <= (*others)[thread]) return true;
  }
  const auto found = others_.find(reader);
  if (found == others_.end()) return false;
  const auto* others = found->second.of(block);
  return others && epoch <= (*others)[thread];
}

void BlockOrder::barrier() {
  common_ = epochs_;
  for (std::uint32_t& epoch : epochs_) ++epoch;
  for (const unsigned thread : own_rows_) rows_[thread].clear();
  own_rows_.clear();
  for (const auto& [thread, clock] : others_) common_others_.join(clock);
  others_.clear();
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

void BlockOrder::publish(unsigned thread, ThreadClock& clock) {
  std::vector<std::uint32_t> known = common_;
  if (!rows_[thread].empty()) raise(known, rows_[thread]);
  known[thread] = epochs_[thread]++;
  clock.join(block_, known);
  clock.join(common_others_);
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
    own_rows_.push_back(thread);
  }
  return rows_[thread];
}

}  // namespace simt
