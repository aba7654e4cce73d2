#include "comm/thread_communicator.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <exception>
#include <system_error>
#include <thread>
#include <utility>

#include "serrate/thread_communicator.h"

namespace serrate {

ThreadGroup::ThreadGroup(int size) : ranks_(size) {}

/// The number of the meeting, counted from 1. Under the mutex.
std::int64_t ThreadGroup::arrive(int rank) {
  if (++arrived_ == std::ssize(ranks_)) {
    arrived_ = 0;
    ++complete_;
    changed_.notify_all();
  }
  return ++ranks_[rank].meetings;
}

/// Most peers come within microseconds, sooner than a sleeping thread wakes up; yielding lets them
/// run when there are more ranks than cores.
bool ThreadGroup::spin_until_complete(std::int64_t meeting) const {
  for (int i = 0; i < 100; ++i) {
    if (complete_ >= meeting) return true;
    if (failed_) return false;
    std::this_thread::yield();
  }
  return false;
}

bool ThreadGroup::peer_left(std::int64_t meeting) const {
  return std::any_of(ranks_.begin(), ranks_.end(),
                     [&](const Rank& rank) { return rank.meetings < meeting && rank.left; });
}

bool ThreadGroup::open(int rank, Offer offer, Clock::time_point deadline,
                       const MakeError& make_error) {
  std::unique_lock lock(mutex_);
  if (failed_) return false;
  ranks_[rank].offer = std::move(offer);
  const std::int64_t meeting = arrive(rank);
  lock.unlock();
  if (spin_until_complete(meeting)) return true;

  lock.lock();
  changed_.wait_until(lock, deadline,
                      [&] { return complete_ >= meeting || failed_ || peer_left(meeting); });
  if (complete_ >= meeting) return true;
  if (failed_) return false;
  std::vector<int> missing, left;
  for (int peer = 0; peer < std::ssize(ranks_); ++peer) {
    if (ranks_[peer].meetings >= meeting) continue;
    missing.push_back(peer);
    if (ranks_[peer].left) left.push_back(peer);
  }
  const Error error = make_error(missing, left);
  fail_locked(error.what());
  throw error;
}

bool ThreadGroup::close(int rank) {
  std::unique_lock lock(mutex_);
  const std::int64_t meeting = arrive(rank);
  lock.unlock();
  if (!spin_until_complete(meeting)) {
    lock.lock();
    // No deadline: peers are copying out of this rank's memory, which has to stay until they end.
    changed_.wait(lock, [&] { return complete_ >= meeting; });
  }
  // A peer that is through may have failed since, in what came next.
  return !failed_ || failed_after_ >= meeting;
}

void ThreadGroup::fail_locked(std::string_view why) {
  if (failed_) return;
  failure_ = why;
  failed_after_ = complete_;
  failed_ = true;
  changed_.notify_all();
}

void ThreadGroup::fail(std::string_view why) {
  const std::lock_guard lock(mutex_);
  fail_locked(why);
}

std::string ThreadGroup::failure() const {
  const std::lock_guard lock(mutex_);
  return failure_;
}

void ThreadGroup::leave(int rank) {
  const std::lock_guard lock(mutex_);
  ranks_[rank].left = true;
  changed_.notify_all();
}

std::shared_ptr<ThreadGroup> ThreadGroup::subgroup(int first, int size) {
  const std::lock_guard lock(mutex_);
  Subgroup& subgroup = subgroups_[first];
  if (!subgroup.group) subgroup.group = std::make_shared<ThreadGroup>(size);
  std::shared_ptr<ThreadGroup> group = subgroup.group;
  if (++subgroup.taken == size) subgroups_.erase(first);
  return group;
}

ThreadCommunicator::ThreadCommunicator(int rank, int size, std::shared_ptr<ThreadGroup> group)
    : Communicator(rank, size), group_(std::move(group)) {}

ThreadCommunicator::~ThreadCommunicator() {
  group_->leave(rank());
}

void ThreadCommunicator::throw_failed(const Exchange& exchange) const {
  throw Error(fmt::format("{}: another rank failed ({})", describe(exchange), group_->failure()),
              ErrorKind::kRetryable);
}

void ThreadCommunicator::exchange_headers(Exchange& exchange) {
  const Stream& stream = exchange.stream;
  ThreadGroup::Offer offer{exchange.peers.data(), nullptr};
  if (stream.device() != Device::cpu()) {
    if (!events_ || events_->ready.device() != stream.device()) {
      events_ = std::make_shared<ThreadGroup::Events>(stream.device());
    }
    events_->ready.record(stream);
    offer.events = events_;
  }
  const auto make_error = [&](const std::vector<int>& missing, const std::vector<int>& left) {
    if (left.empty()) return deadline_error(exchange, missing);
    return Error(fmt::format("{}: rank {} left (it failed, or called fewer operations)",
                             describe(exchange), named(left.front())),
                 ErrorKind::kRetryable);
  };
  if (!group_->open(rank(), offer, exchange.deadline, make_error)) throw_failed(exchange);
  open_ = &stream;
  for (int peer = 0; peer < size(); ++peer) exchange.peers[peer].from = offer_of(peer).to;
}

void ThreadCommunicator::exchange_rows(Exchange& exchange) {
  const Stream& stream = exchange.stream;
  for (int i = 0; i < size(); ++i) {
    const int peer = (rank() + i) % size();  // ranks begin at different peers
    const std::byte* const from = offer_of(peer).send;
    const Peer& to = exchange.peers[peer];
    if (from == to.receive || to.receive_bytes() == 0) continue;
    const auto& events = group_->offer(peer).events;
    if (events && peer != rank()) stream.wait_for(events->ready);
    copy_bytes(from, to.receive, to.receive_bytes(), stream);
  }
  std::vector<std::shared_ptr<ThreadGroup::Events>> readers;
  if (stream.device() != Device::cpu()) {
    events_->copied.record(stream);
    for (int peer = 0; peer < size(); ++peer) {
      if (peer != rank() && exchange.peers[peer].send_bytes() > 0) {
        readers.push_back(group_->offer(peer).events);
      }
    }
  }
  open_ = nullptr;
  const bool all_well = group_->close(rank());
  for (const auto& reader : readers) stream.wait_for(reader->copied);
  if (!all_well) throw_failed(exchange);
}

void ThreadCommunicator::give_up(std::string_view why) noexcept {
  group_->fail(fmt::format("rank {}: {}", named(rank()), why));
  const Stream* const stream = std::exchange(open_, nullptr);
  if (!stream) return;
  // Memory may go when this returns: what reads from peers ends before they have come to the second
  // meeting, and what they read here after it. A device that has failed reads no more.
  std::vector<std::shared_ptr<ThreadGroup::Events>> readers;
  try {
    for (int peer = 0; peer < size(); ++peer) readers.push_back(group_->offer(peer).events);
    stream->synchronize();
  } catch (const std::exception&) {  // NOLINT(bugprone-empty-catch): see above
  }
  group_->close(rank());
  try {
    for (const auto& reader : readers) {
      if (reader) reader->copied.synchronize();
    }
  } catch (const std::exception&) {  // NOLINT(bugprone-empty-catch): see above
  }
}

std::unique_ptr<Communicator> ThreadCommunicator::split_group(const std::vector<int>& members) {
  const int size = static_cast<int>(members.size());
  const auto self = std::find(members.begin(), members.end(), rank());
  return std::make_unique<ThreadCommunicator>(static_cast<int>(self - members.begin()), size,
                                              group_->subgroup(members.front(), size));
}

std::vector<std::unique_ptr<Communicator>> make_thread_communicators(
    int size, std::chrono::milliseconds deadline) {
  check(size >= 1, "a group needs at least one rank");
  const auto group = std::make_shared<ThreadGroup>(size);
  std::vector<std::unique_ptr<Communicator>> communicators;
  for (int rank = 0; rank < size; ++rank) {
    communicators.push_back(std::make_unique<ThreadCommunicator>(rank, size, group));
    communicators.back()->set_deadline(deadline);
  }
  return communicators;
}

void run_thread_ranks(int size, std::chrono::milliseconds deadline,
                      const std::function<void(Communicator&)>& body) {
  std::vector<std::unique_ptr<Communicator>> communicators =
      make_thread_communicators(size, deadline);
  std::mutex mutex;
  // The cause: peers of a failed rank fail too, with retryable errors that may be recorded first.
  std::exception_ptr cause;
  bool cause_is_retryable = false;
  const auto run = [&](int rank) {
    const std::unique_ptr<Communicator> communicator = std::move(communicators[rank]);
    const auto fail = [&](std::string_view why, bool is_retryable) {
      const std::lock_guard lock(mutex);
      if (!cause || (cause_is_retryable && !is_retryable)) {
        cause = std::current_exception();
        cause_is_retryable = is_retryable;
      }
      communicator->abandon(why);
    };
    try {
      body(*communicator);
    } catch (const Error& error) {
      fail(error.what(), error.kind() == ErrorKind::kRetryable);
    } catch (const std::exception& error) {
      fail(error.what(), false);
    } catch (...) {
      fail("an exception of unknown type", false);
    }
  };
  std::vector<std::jthread> threads;
  int next = 1;  // rank to start
  try {
    for (; next < size; ++next) threads.emplace_back(run, next);
  } catch (const std::system_error& error) {
    const std::string why = fmt::format(
        "only {} of {} ranks can be started as threads ({}: too many for this machine or for a "
        "limit of processes or memory): use fewer ranks",
        next, size, error.code().message());
    communicators[next]->abandon(why);  // the ranks that run need not wait for their deadlines
    threads.clear();
    throw Error(why);
  }
  run(0);
  threads.clear();
  if (cause) std::rethrow_exception(cause);
}

}  // namespace serrate
