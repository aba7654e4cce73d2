#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

namespace simt {

/// The last known epoch of each thread of a block; 0 beyond its end. Threads that know the same
/// share one.
using Epochs = std::shared_ptr<const std::vector<std::uint32_t>>;

/// What is known of a grid's threads: of block b, thread t, all up to epoch [b][t] is before.
class ThreadClock {
 public:
  void join(std::uint32_t block, const Epochs& epochs);
  void join(const ThreadClock& other);
  /// What the other knows of all blocks but one.
  void join_others(const ThreadClock& other, std::uint32_t block);
  /// Null when nothing is known of a block.
  const Epochs* of(std::uint32_t block) const {
    const auto found = blocks_.find(block);
    return found == blocks_.end() ? nullptr : &found->second;
  }
  bool empty() const { return blocks_.empty(); }
  /// Whether something is known of another block than this.
  bool knows_others(std::uint32_t block) const { return blocks_.size() > blocks_.count(block); }

 private:
  std::map<std::uint32_t, Epochs> blocks_;
};

/// The happens-before order among the threads of a block, as vector clocks. A barrier of all
/// threads is by far the most frequent: what they know in common is kept once. Asynchronous
/// operations are threads too, numbered behind those of the block: they know what their issuer
/// knew, no barrier includes them, and who waits for one learns what it did.
class BlockOrder {
 public:
  void begin(std::uint32_t block, unsigned threads);

  std::uint32_t epoch(unsigned thread) const { return epochs_[thread]; }
  void next_epoch(unsigned thread) { ++epochs_[thread]; }
  /// The number of a new asynchronous thread, which knows nothing.
  unsigned add_asynchronous();
  /// The operation of an asynchronous thread begins: it knows `clock` and nothing else.
  void begin_asynchronous(unsigned thread, const ThreadClock& clock);
  /// Whether a thread knows all that an asynchronous one did.
  bool knows_all(unsigned reader, unsigned asynchronous) const {
    return knows(reader, block_, asynchronous, epochs_[asynchronous] - 1);
  }
  /// Whether what a thread of this grid did in that epoch is before what `reader` does now.
  bool knows(unsigned reader, std::uint32_t block, unsigned thread, std::uint32_t epoch) const {
    return block == block_ ? knows_here(reader, thread, epoch)
                           : knows_elsewhere(reader, block, thread, epoch);
  }
  /// The same of a thread of this block.
  bool knows_here(unsigned reader, unsigned thread, std::uint32_t epoch) const {
    return reader == thread || knows(known_here(reader), thread, epoch);
  }
  /// What a thread knows of the others of this block.
  std::span<const std::uint32_t> known_here(unsigned reader) const { return *known_to(reader); }
  static bool knows(std::span<const std::uint32_t> known, unsigned thread, std::uint32_t epoch) {
    return thread < known.size() && epoch <= known[thread];
  }
  /// Whether a thread knows anything of another block.
  bool knows_of(unsigned reader, std::uint32_t block) const {
    return knows_elsewhere(reader, block, 0, 0);
  }

  void barrier();                                   // of all threads
  void barrier(std::span<const unsigned> threads);  // of some
  // What the threads know, and did until now.
  void publish(std::span<const unsigned> threads, ThreadClock& clock);
  void publish(unsigned thread, ThreadClock& clock) { publish({&thread, 1}, clock); }
  /// That the thread came this far, and nothing that it knows.
  void publish_alone(unsigned thread, ThreadClock& clock) const;
  void acquire(unsigned thread, const ThreadClock& clock);

 private:
  bool is_asynchronous(unsigned thread) const { return thread >= threads_; }
  const Epochs& known_to(unsigned thread) const { return rows_[thread] ? rows_[thread] : common_; }
  bool knows_elsewhere(unsigned reader, std::uint32_t block, unsigned thread,
                       std::uint32_t epoch) const;
  /// What they know of this block, together.
  std::vector<std::uint32_t> known_together(std::span<const unsigned> threads) const;
  void learn(unsigned thread, const Epochs& epochs);

  std::uint32_t block_ = 0;
  unsigned threads_ = 0;
  std::vector<std::uint32_t> epochs_;  // [threads + asynchronous], from 1
  Epochs common_;                      // what all threads know
  std::vector<Epochs> rows_;           // [threads + asynchronous], what one knows; null: common_
  std::vector<unsigned> own_rows_;     // the threads, not asynchronous, whose rows are not null
  ThreadClock common_others_;          // of other blocks
  std::map<unsigned, ThreadClock> others_;
  struct {
    Epochs known, learnt, both;
  } last_;  // learn()
};

}  // namespace simt
