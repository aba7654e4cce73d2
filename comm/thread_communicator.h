#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "comm/exchange.h"
#include "serrate/communicator.h"
#include "serrate/event.h"

namespace serrate {

/// Where the ranks of a ThreadCommunicator meet. An exchange is two meetings: at the first every
/// rank offers its rows, after it each copies what is for it straight out of its peers' memory,
/// and at the second all have finished, so that nobody's rows can go away while they are read. On a
/// GPU nothing waits but streams: copies for the events of the peers' rows, and what comes after
/// the exchange for the events of the peers' copies. Only the queueing of them meets.
class ThreadGroup {
 public:
  /// What a rank whose rows are on a GPU records.
  struct Events {
    explicit Events(Device device) : ready(device), copied(device) {}
    Event ready;   // the rows are written
    Event copied;  // the rank has what is for it; recorded before the second meeting
  };
  struct Offer {
    const Communicator::Peer* peers = nullptr;  // [ranks]: the rows for each
    std::shared_ptr<Events> events;  // which peers may still wait for when a rank has left
  };
  using Clock = std::chrono::steady_clock;
  /// Says why a meeting failed. Peers that did not come in time, and among them those that left.
  using MakeError =
      std::function<Error(const std::vector<int>& missing, const std::vector<int>& left)>;

  explicit ThreadGroup(int size);

  /// The first meeting; false if the group has failed. It fails as a whole or not at all: once it
  /// has failed for one rank it cannot succeed for another.
  bool open(int rank, Offer offer, Clock::time_point deadline, const MakeError& make_error);
  /// The second meeting, which every rank that was at the first comes to in bounded time, even
  /// when its exchange failed; false if the group failed before all came.
  bool close(int rank);

  /// What a rank brought to the meeting that was opened last.
  const Offer& offer(int rank) const { return ranks_[rank].offer; }

  void fail(std::string_view why);
  std::string failure() const;
  /// The rank comes to no more meetings.
  void leave(int rank);

  /// A new group of `size` ranks, the same for all that name the same `first` member of it.
  std::shared_ptr<ThreadGroup> subgroup(int first, int size);

 private:
  struct Rank {
    Offer offer;
    std::int64_t meetings = 0;
    bool left = false;
  };
  struct Subgroup {
    std::shared_ptr<ThreadGroup> group;
    int taken = 0;
  };

  std::int64_t arrive(int rank);
  bool spin_until_complete(std::int64_t meeting) const;
  bool peer_left(std::int64_t meeting) const;
  void fail_locked(std::string_view why);

  mutable std::mutex mutex_;  // guards what follows, but for what is atomic
  std::condition_variable changed_;
  std::vector<Rank> ranks_;                // an offer is constant from one open meeting to the next
  int arrived_ = 0;                        // ranks at the meeting that is not complete yet
  std::atomic<std::int64_t> complete_{0};  // meetings that all ranks came to
  std::atomic<bool> failed_{false};
  std::int64_t failed_after_ = 0;  // meetings that were complete when it did; set before failed_
  std::string failure_;
  std::map<int, Subgroup> subgroups_;
};

class ThreadCommunicator final : public Communicator {
 public:
  ThreadCommunicator(int rank, int size, std::shared_ptr<ThreadGroup> group);
  ~ThreadCommunicator() override;

 private:
  void exchange_headers(Exchange& exchange) override;
  void exchange_rows(Exchange& exchange) override;
  void give_up(std::string_view why) noexcept override;
  std::unique_ptr<Communicator> split_group(const std::vector<int>& members) override;

  [[noreturn]] void throw_failed(const Exchange& exchange) const;
  /// What `peer` brought for this rank.
  const Peer& offer_of(int peer) const { return group_->offer(peer).peers[rank()]; }

  std::shared_ptr<ThreadGroup> group_;           // belongs to all of its ranks
  std::shared_ptr<ThreadGroup::Events> events_;  // of the device that rows were on last
  // Between the two meetings of an exchange: its stream.
  const Stream* open_ = nullptr;
};

}  // namespace serrate
