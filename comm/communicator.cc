#include "serrate/communicator.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>

#include "comm/exchange.h"

namespace serrate {
namespace {

// No exchange of a real job is near this; a header that announces more is not believed.
constexpr std::int64_t kMaxPeerBytes = std::int64_t{1} << 46;

}  // namespace

Communicator::Communicator(int rank, int size)
    : rank_(rank), size_(size), names_(size), peers_(size) {
  check(size >= 1 && rank >= 0 && rank < size, "a communicator needs 0 <= rank < size");
  std::iota(names_.begin(), names_.end(), 0);
}

Communicator::~Communicator() = default;

std::string Communicator::describe(const Exchange& exchange) const {
  return fmt::format("rank {}: {}", named(rank_), exchange.call().name());
}

Error Communicator::deadline_error(const Exchange& exchange,
                                   const std::vector<int>& missing) const {
  std::vector<int> missing_names(missing.size());
  std::transform(missing.begin(), missing.end(), missing_names.begin(),
                 [&](int peer) { return named(peer); });
  return Error(
      fmt::format("{}: waited {} ms for rank {} (stopped, lost or slower than the deadline): "
                  "restart the job, with a longer timeout if the rank was only slow",
                  describe(exchange), deadline_.count(), fmt::join(missing_names, ", ")),
      ErrorKind::kRetryable);
}

void Communicator::check_header(const Exchange& exchange, int peer) const {
  const Header& mine = exchange.peers[peer].to;
  const Header& theirs = exchange.peers[peer].from;
  if (!theirs.same_call(mine)) {
    throw Error(
        fmt::format("ranks disagree: rank {} called {}, rank {} called {} (every rank has "
                    "to call the same operations in the same order): look for a step or a "
                    "size that depends on the rank",
                    named(rank_), mine.description(), named(peer), theirs.description()));
  }
  const std::int64_t expected = exchange.peers[peer].expected_rows;
  if (expected != Peer::kAnyRows && theirs.rows != expected) {
    throw Error(fmt::format(
        "{}: rank {} sends {} rows, {} were agreed (sizes differ from those of the host collective "
        "before, or a message is damaged): look for a size that depends on the rank",
        describe(exchange), named(peer), theirs.rows, expected));
  }
  if (theirs.rows < 0 || theirs.rows > kMaxPeerBytes / std::max<std::int64_t>(mine.row_bytes, 1)) {
    throw Error(fmt::format("{}: rank {} announces {} rows of {} bytes (a damaged message)",
                            describe(exchange), named(peer), theirs.rows, mine.row_bytes));
  }
}

Communicator::Exchange Communicator::begin(const Header& call, const Stream& stream) {
  Peer peer;
  peer.to = call;
  peer.to.device = stream.device().type;
  peer.to.sequence = ++sequence_;
  if (!failure_.empty()) {
    throw Error(fmt::format("rank {}: {} after an error (an exchange failed before: {})",
                            named(rank_), peer.to.name(), failure_),
                ErrorKind::kRetryable);
  }
  std::fill(peers_.begin(), peers_.end(), peer);
  return {peers_, stream, std::chrono::steady_clock::now() + deadline_};
}

Communicator::Exchange Communicator::begin_on_host(const Header& call) {
  ++host_exchanges_;
  return begin(call, host_);
}

/// place_rows gives every peer its `receive`, once the headers say how much comes.
void Communicator::transfer(Exchange& exchange, const std::function<void()>& place_rows) try {
  if (size_ == 1) {
    Peer& self = exchange.peers[0];
    self.from = self.to;
    check_header(exchange, 0);
    place_rows();
    if (self.receive != self.send) {
      copy_bytes(self.send, self.receive, self.send_bytes(), exchange.stream);
    }
    return;
  }
  exchange_headers(exchange);
  for (int peer = 0; peer < size_; ++peer) check_header(exchange, peer);
  place_rows();
  exchange_rows(exchange);
} catch (const std::exception& error) {
  abandon(error.what());
  throw;
}

void Communicator::abandon(std::string_view why) noexcept {
  if (!failure_.empty()) return;
  failure_ = why;
  give_up(why);
}

/// Gives all peers their `receive`, one after another from `to` on.
void Communicator::place_in_rank_order(std::byte* to) {
  for (Peer& peer : peers_) {
    peer.receive = to;
    to += peer.receive_bytes();
  }
}

/// Gives all peers their `send`, one after another from `from` on.
void Communicator::send_in_rank_order(const std::byte* from, std::span<const std::int64_t> counts) {
  for (int peer = 0; peer < size_; ++peer) {
    peers_[peer].to.rows = counts[peer];
    peers_[peer].send = from;
    from += peers_[peer].send_bytes();
  }
}

void Communicator::send_to_all(const std::byte* from, std::int64_t rows) {
  for (Peer& peer : peers_) {
    peer.to.rows = rows;
    peer.send = from;
  }
}

void Communicator::expect(std::span<const std::int64_t> counts) {
  for (int peer = 0; peer < size_; ++peer) peers_[peer].expected_rows = counts[peer];
}

/// Memory of a GPU is freed in the order of its stream, which a communicator outlives: there it is
/// `own` of the call.
Buffer<std::byte>& Communicator::terms_on(const Stream& stream, Buffer<std::byte>& own) {
  return stream.device() == Device::cpu() ? host_terms_ : own;
}

std::unique_ptr<Communicator> Communicator::split(int color) {
  const std::vector<std::int64_t> colors = gather_int64("split", color);
  std::vector<int> members;
  for (int rank = 0; rank < size_; ++rank) {
    if (colors[rank] == color) members.push_back(rank);
  }
  std::unique_ptr<Communicator> group = split_group(members);
  for (std::size_t i = 0; i < members.size(); ++i) group->names_[i] = named(members[i]);
  group->set_deadline(deadline_);
  return group;
}

}  // namespace serrate
