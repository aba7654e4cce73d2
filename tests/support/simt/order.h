#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

namespace simt {

/// What is known of a grid's threads: of block b, thread t, all up to epoch [b][t] is before.
class ThreadClock {
 public:
  void join(std::uint32_t block, const std::vector<std::uint32_t>& epochs);
  void join(const ThreadClock& other);
  /// Null when nothing is known of a block.
  const std::vector<std::uint32_t>* of(std::uint32_t block) const {
    const auto found = blocks_.find(block);
    return found == blocks_.end() ? nullptr : found->second.get();
  }
  bool empty() const { return blocks_.empty(); }

 private:
  std::map<std::uint32_t, std::shared_ptr<const std::vector<std::uint32_t>>> blocks_;
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
  bool knows(unsigned reader, std::uint32_t block, unsigned thread, std::uint32_t epoch) const;

  void barrier();                                      // of all threads
  void barrier(const std::vector<unsigned>& threads);  // of some
  void publish(unsigned thread, ThreadClock& clock);   // what the thread knows, and did until now
  void acquire(unsigned thread, const ThreadClock& clock);

 private:
  bool is_asynchronous(unsigned thread) const { return thread >= threads_; }
  std::vector<std::uint32_t>& own_row(unsigned thread);
  std::vector<std::uint32_t> known_to(unsigned thread) const;

  std::uint32_t block_ = 0;
  unsigned threads_ = 0;
  // Vectors may end before the last asynchronous thread: nothing is known of it then.
  std::vector<std::uint32_t> epochs_;             // [threads + asynchronous], from 1
  std::vector<std::uint32_t> common_;             // [threads + asynchronous], what all threads know
  std::vector<std::vector<std::uint32_t>> rows_;  // what one knows beyond; or empty
  std::vector<unsigned> own_rows_;                // those of threads that are not empty
  ThreadClock common_others_;                     // of other blocks
  std::map<unsigned, ThreadClock> others_;
};

}  // namespace simt
