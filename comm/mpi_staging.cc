#include "comm/mpi_staging.h"

#include <algorithm>

#include "comm/idle.h"
#include "comm/mpi_check.h"

namespace serrate {
namespace {

bool is_done(MPI_Request& message) {
  int done = 0;
  mpi_check(MPI_Test(&message, &done, MPI_STATUS_IGNORE));
  return done != 0;
}

}  // namespace

MpiStaging::MpiStaging(Device device) : device_(device), out_(make_slots()), in_(make_slots()) {}

MpiStaging::Slots MpiStaging::make_slots() const {
  Slots slots{.memory = {kSlots * kChunkBytes, device_}, .copied = {}, .messages = {}};
  for (std::int64_t i = 0; i < kSlots; ++i) slots.copied.emplace_back(device_);
  slots.messages.fill(MPI_REQUEST_NULL);
  return slots;
}

void MpiStaging::begin(const Communicator::Exchange& exchange, const Route& route) {
  const std::int64_t most = std::min(kChunkBytes, route.max_count);
  const auto cut = [&](int peer, std::int64_t bytes, std::vector<Chunk>& chunks) {
    for (std::int64_t offset = 0; offset < bytes; offset += most) {
      chunks.push_back({peer, offset, std::min(most, bytes - offset)});
    }
  };
  sends_.clear();
  receives_.clear();
  for (int distance = 1; distance < route.size; ++distance) {
    const int to = (route.rank + route.size - distance) % route.size;
    const int from = (route.rank + distance) % route.size;
    cut(to, exchange.peers[to].send_bytes(), sends_);
    cut(from, exchange.peers[from].receive_bytes(), receives_);
  }
  copied_ = sent_ = gone_ = posted_ = arrived_ = 0;
}

void MpiStaging::transfer(const Communicator::Exchange& exchange, const Route& route,
                          const DeadlineError& deadline_error) {
  using Clock = std::chrono::steady_clock;
  begin(exchange, route);
  Clock::time_point progressed = Clock::now();
  while (gone_ < std::ssize(sends_) || arrived_ < std::ssize(receives_)) {
    const bool sends_moved = advance_sends(exchange, route);
    const bool receives_moved = advance_receives(exchange, route);
    const Clock::time_point now = Clock::now();
    if (sends_moved || receives_moved) {
      progressed = now;
      continue;
    }
    const std::vector<int> missing = waited_for();
    // While no peer is waited for, it is this rank's own device that is slow.
    if (now >= exchange.deadline && !missing.empty()) throw deadline_error(missing);
    idle(now - progressed);
  }
}

bool MpiStaging::advance_sends(const Communicator::Exchange& exchange, const Route& route) {
  const std::int64_t before = copied_ + sent_ + gone_;
  for (; copied_ < std::ssize(sends_) && copied_ - gone_ < kSlots; ++copied_) {
    const Chunk& chunk = sends_[copied_];
    const std::int64_t slot = copied_ % kSlots;
    const std::byte* const from = exchange.peers[chunk.peer].send + chunk.offset;
    copy_async<std::byte>(DeviceSpan(from, static_cast<std::size_t>(chunk.bytes)), out_.memory,
                          slot * kChunkBytes, exchange.stream);
    out_.copied[slot].record(exchange.stream);
  }
  for (; sent_ < copied_ && out_.copied[sent_ % kSlots].is_reached(); ++sent_) {
    const std::int64_t slot = sent_ % kSlots;
    mpi_check(MPI_Isend(out_.memory.span().data() + slot * kChunkBytes,
                        static_cast<int>(sends_[sent_].bytes), MPI_BYTE, sends_[sent_].peer,
                        route.tag, route.comm, &out_.messages[slot]));
  }
  while (gone_ < sent_ && is_done(out_.messages[gone_ % kSlots])) ++gone_;
  return copied_ + sent_ + gone_ > before;
}

bool MpiStaging::advance_receives(const Communicator::Exchange& exchange, const Route& route) {
  const std::int64_t before = posted_ + arrived_;
  // A slot is free when what came before, in this transfer or the last one, is on the device.
  for (; posted_ < std::ssize(receives_) && posted_ - arrived_ < kSlots &&
         in_.copied[posted_ % kSlots].is_reached();
       ++posted_) {
    const std::int64_t slot = posted_ % kSlots;
    mpi_check(MPI_Irecv(in_.memory.span().data() + slot * kChunkBytes,
                        static_cast<int>(receives_[posted_].bytes), MPI_BYTE,
                        receives_[posted_].peer, route.tag, route.comm, &in_.messages[slot]));
  }
  for (; arrived_ < posted_ && is_done(in_.messages[arrived_ % kSlots]); ++arrived_) {
    const Chunk& chunk = receives_[arrived_];
    const std::int64_t slot = arrived_ % kSlots;
    std::byte* const to = exchange.peers[chunk.peer].receive + chunk.offset;
    copy_async<std::byte>(in_.memory, slot * kChunkBytes,
                          DeviceSpan(to, static_cast<std::size_t>(chunk.bytes)), exchange.stream);
    in_.copied[slot].record(exchange.stream);
  }
  return posted_ + arrived_ > before;
}

std::vector<int> MpiStaging::waited_for() const {
  std::vector<int> peers;
  for (std::int64_t i = gone_; i < sent_; ++i) peers.push_back(sends_[i].peer);
  for (std::int64_t i = arrived_; i < posted_; ++i) peers.push_back(receives_[i].peer);
  std::sort(peers.begin(), peers.end());
  peers.erase(std::unique(peers.begin(), peers.end()), peers.end());
  return peers;
}

void MpiStaging::cancel_receives() noexcept {
  for (MPI_Request& message : in_.messages) {
    if (message == MPI_REQUEST_NULL) continue;
    MPI_Cancel(&message);
    MPI_Request_free(&message);
  }
}

}  // namespace serrate
