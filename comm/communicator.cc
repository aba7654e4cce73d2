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

template <typename T>
constexpr ElementType element_type() {
  if constexpr (std::is_same_v<T, float>) return ElementType::kFloat;
  if constexpr (std::is_same_v<T, double>) return ElementType::kDouble;
  if constexpr (std::is_same_v<T, std::int64_t>) return ElementType::kInt64;
  if constexpr (std::is_same_v<T, std::int32_t>) return ElementType::kInt32;
  return ElementType::kBytes;
}

template <typename T>
const std::byte* bytes(const T* values) {
  return reinterpret_cast<const std::byte*>(values);
}

template <typename T>
std::byte* bytes(T* values) {
  return reinterpret_cast<std::byte*>(values);
}

template <typename T>
std::int64_t row_bytes(std::int64_t width) {
  return width * static_cast<std::int64_t>(sizeof(T));
}

/// FNV-1a.
std::int64_t hash_of(std::span<const std::int64_t> values) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const std::int64_t value : values) {
    hash = (hash ^ static_cast<std::uint64_t>(value)) * 0x100000001b3;
  }
  return static_cast<std::int64_t>(hash);
}

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
      fmt::format("{}: waited {} ms for rank {} (stopped, lost or slower than the deadline) "
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
                    "to call the same operations in the same order) look for a step or a "
                    "size that depends on the rank",
                    named(rank_), mine.description(), named(peer), theirs.description()));
  }
  const std::int64_t expected = exchange.peers[peer].expected_rows;
  if (expected != Peer::kAnyRows && theirs.rows != expected) {
    throw Error(fmt::format("{}: rank {} sends {} rows where {} are needed (a damaged message)",
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
  peer.to.sequence = ++sequence_;
  if (!failure_.empty()) {
    throw Error(fmt::format("rank {}: {} after an error (an exchange failed before: {})",
                            named(rank_), peer.to.name(), failure_),
                ErrorKind::kRetryable);
  }
  std::fill(peers_.begin(), peers_.end(), peer);
  return {peers_, stream, std::chrono::steady_clock::now() + deadline_};
}

/// place_rows gives every peer its `receive`, once the headers say how much comes.
template <typename PlaceRows>
void Communicator::transfer(Exchange& exchange, PlaceRows&& place_rows) try {
  if (size_ == 1) {
    Peer& self = exchange.peers[0];
    self.from = self.to;
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

std::int64_t Communicator::announced_rows(std::vector<std::int64_t>& counts) const {
  counts.resize(size_);
  for (int peer = 0; peer < size_; ++peer) counts[peer] = peers_[peer].from.rows;
  return std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
}

template <typename T>
void Communicator::all_to_all(std::string_view operation,
                              std::span<const std::type_identity_t<T>> send,
                              std::span<const std::int64_t> send_counts, std::int64_t width,
                              Buffer<T>& receive, std::vector<std::int64_t>& receive_counts,
                              const Stream& stream) {
  check(std::ssize(send_counts) == size_, "all_to_all needs a count for every rank");
  check(std::all_of(send_counts.begin(), send_counts.end(), [](auto n) { return n >= 0; }) &&
            std::accumulate(send_counts.begin(), send_counts.end(), std::int64_t{0}) * width ==
                std::ssize(send),
        "all_to_all needs as many rows as its counts say");
  const Header call(Collective::kAllToAll, operation, element_type<T>(), row_bytes<T>(width));
  Exchange exchange = begin(call, stream);
  const std::byte* from = bytes(send.data());
  for (int peer = 0; peer < size_; ++peer) {
    peers_[peer].to.rows = send_counts[peer];
    peers_[peer].send = from;
    from += peers_[peer].send_bytes();
  }
  transfer(exchange, [&] {
    const std::int64_t rows = announced_rows(receive_counts);
    place_in_rank_order(bytes(receive.resize_discard(rows * width, stream).data()));
  });
}

template <typename T>
void Communicator::all_gather(std::string_view operation,
                              std::span<const std::type_identity_t<T>> rows, std::int64_t width,
                              Buffer<T>& gathered, std::vector<std::int64_t>& counts,
                              const Stream& stream) {
  check(width > 0 ? std::ssize(rows) % width == 0 : rows.empty(), "all_gather needs whole rows");
  const Header call(Collective::kAllGather, operation, element_type<T>(), row_bytes<T>(width));
  Exchange exchange = begin(call, stream);
  for (Peer& peer : peers_) {
    peer.to.rows = width > 0 ? std::ssize(rows) / width : 0;
    peer.send = bytes(rows.data());
  }
  transfer(exchange, [&] {
    const std::int64_t total = announced_rows(counts);
    place_in_rank_order(bytes(gathered.resize_discard(total * width, stream).data()));
  });
}

struct Communicator::Part {
  std::int64_t begin;
  std::int64_t count;
};

/// Sends parts[r] of `values` to rank r. The sum of what all ranks sent here, in rank order, on the
/// host; valid until the next sum.
template <typename T>
std::span<T> Communicator::reduce(const Header& call, const T* values, std::span<const Part> parts,
                                  const Stream& stream) {
  const std::int64_t count = parts[rank_].count;
  Exchange exchange = begin(call, stream);
  for (int peer = 0; peer < size_; ++peer) {
    peers_[peer].to.rows = parts[peer].count;
    peers_[peer].expected_rows = count;
    peers_[peer].send = bytes(values + parts[peer].begin);
  }
  transfer(exchange, [&] {
    scratch_.resize_discard(row_bytes<T>(count) * size_, Stream());
    place_in_rank_order(scratch_.data());
  });
  stream.synchronize();
  T* const sum = reinterpret_cast<T*>(scratch_.data());
  for (int peer = 1; peer < size_; ++peer) {
    const T* const term = sum + peer * count;
    for (std::int64_t i = 0; i < count; ++i) sum[i] += term[i];
  }
  return {sum, static_cast<std::size_t>(count)};
}

template <typename T>
void Communicator::all_reduce_sum(std::string_view operation, std::span<T> values,
                                  const Stream& stream) {
  const std::int64_t size = std::ssize(values);
  const Header call(Collective::kAllReduceSum, operation, element_type<T>(), sizeof(T), size);
  if (size_ == 1) return;
  std::vector<Part> parts(size_, {0, size});
  if (row_bytes<T>(size) <= kSmallBytes) {  // one exchange, and every rank sums all
    copy<T>(reduce(call, values.data(), parts, stream), values, stream);
    stream.synchronize();
    return;
  }
  for (int peer = 0; peer < size_; ++peer) {
    const std::int64_t begin = size * peer / size_;
    parts[peer] = {begin, size * (peer + 1) / size_ - begin};
  }
  const std::span<T> sum = reduce(call, values.data(), parts, stream);
  Exchange exchange = begin(call, stream);
  for (int peer = 0; peer < size_; ++peer) {
    peers_[peer].to.rows = std::ssize(sum);
    peers_[peer].expected_rows = parts[peer].count;
    peers_[peer].send = bytes(sum.data());
  }
  transfer(exchange, [&] { place_in_rank_order(bytes(values.data())); });
}

template <typename T>
void Communicator::reduce_scatter_sum(std::string_view operation,
                                      std::span<const std::type_identity_t<T>> values,
                                      std::span<const std::int64_t> counts, std::span<T> part,
                                      const Stream& stream) {
  check(std::ssize(counts) == size_, "reduce_scatter_sum needs a count for every rank");
  std::vector<Part> parts;
  std::int64_t size = 0;
  for (const std::int64_t count : counts) {
    check(count >= 0, "reduce_scatter_sum needs counts that are not negative");
    parts.push_back({size, count});
    size += count;
  }
  check(size == std::ssize(values) && counts[rank_] == std::ssize(part),
        "reduce_scatter_sum needs as many values as its counts say");
  const Header call(Collective::kReduceScatterSum, operation, element_type<T>(), sizeof(T),
                    hash_of(counts));
  copy<T>(reduce(call, values.data(), parts, stream), part, stream);
  stream.synchronize();
}

template <typename T>
void Communicator::broadcast(std::string_view operation, std::span<T> values, int root,
                             const Stream& stream) {
  check(root >= 0 && root < size_, "broadcast needs a root among the ranks");
  const std::int64_t size = std::ssize(values);
  Header call(Collective::kBroadcast, operation, element_type<T>(), sizeof(T), size);
  call.root = root;
  Exchange exchange = begin(call, stream);
  for (int peer = 0; peer < size_; ++peer) {
    peers_[peer].to.rows = rank_ == root ? size : 0;
    peers_[peer].expected_rows = peer == root ? size : 0;
    peers_[peer].send = bytes(values.data());
  }
  transfer(exchange, [&] { peers_[root].receive = bytes(values.data()); });
}

void Communicator::barrier(std::string_view operation) {
  const Stream host;
  Exchange exchange = begin({Collective::kBarrier, operation, ElementType::kBytes, 0}, host);
  transfer(exchange, [] {});
}

std::vector<std::int64_t> Communicator::gather_int64(std::string_view operation,
                                                     std::int64_t value) {
  const Stream host;
  Buffer<std::int64_t> values;
  std::vector<std::int64_t> counts;
  all_gather<std::int64_t>(operation, {&value, 1}, 1, values, counts, host);
  return values.to_host(host);
}

std::vector<std::string> Communicator::gather_strings(std::string_view operation,
                                                      std::string_view value) {
  const Stream host;
  Buffer<std::byte> characters;
  std::vector<std::int64_t> counts;
  all_gather<std::byte>(operation, std::as_bytes(std::span(value)), 1, characters, counts, host);
  const char* next = reinterpret_cast<const char*>(characters.data());
  std::vector<std::string> strings;
  for (const std::int64_t count : counts) {
    strings.emplace_back(next, count);
    next += count;
  }
  return strings;
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

#define SERRATE_MOVE(T)                                                                         \
  template void Communicator::all_to_all<T>(                                                    \
      std::string_view, std::span<const T>, std::span<const std::int64_t>, std::int64_t,        \
      Buffer<T>&, std::vector<std::int64_t>&, const Stream&);                                   \
  template void Communicator::all_gather<T>(std::string_view, std::span<const T>, std::int64_t, \
                                            Buffer<T>&, std::vector<std::int64_t>&,             \
                                            const Stream&);                                     \
  template void Communicator::broadcast<T>(std::string_view, std::span<T>, int, const Stream&);
#define SERRATE_SUM(T)                                                                           \
  template void Communicator::all_reduce_sum<T>(std::string_view, std::span<T>, const Stream&);  \
  template void Communicator::reduce_scatter_sum<T>(std::string_view, std::span<const T>,        \
                                                    std::span<const std::int64_t>, std::span<T>, \
                                                    const Stream&);
SERRATE_MOVE(float)
SERRATE_MOVE(double)
SERRATE_MOVE(std::int64_t)
SERRATE_MOVE(std::int32_t)
SERRATE_MOVE(std::uint8_t)
SERRATE_MOVE(std::byte)
SERRATE_SUM(float)
SERRATE_SUM(double)
SERRATE_SUM(std::int64_t)
#undef SERRATE_MOVE
#undef SERRATE_SUM

}  // namespace serrate
