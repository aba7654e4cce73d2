// The collectives of a communicator: each is an exchange, or two, of rows that lie where its
// arguments say.
#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "comm/exchange.h"
#include "serrate/communicator.h"
#include "src/core/ordered_sum.h"

namespace serrate {
namespace {

template <typename T>
constexpr ElementType element_type() {
  if constexpr (std::is_same_v<T, float>) return ElementType::kFloat;
  if constexpr (std::is_same_v<T, double>) return ElementType::kDouble;
  if constexpr (std::is_same_v<T, std::int64_t>) return ElementType::kInt64;
  if constexpr (std::is_same_v<T, std::int32_t>) return ElementType::kInt32;
  return ElementType::kBytes;
}

std::int64_t sum_of(std::span<const std::int64_t> counts) {
  return std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
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

void Communicator::barrier(std::string_view operation) {
  Exchange exchange = begin_on_host({Collective::kBarrier, operation, ElementType::kBytes, 0});
  transfer(exchange, [] {});
}

template <typename T>
FromRanks<T> Communicator::gather(std::string_view operation,
                                  std::span<const std::type_identity_t<T>> values) {
  Exchange exchange = begin_on_host({Collective::kGather, operation, element_type<T>(), sizeof(T)});
  for (Peer& peer : peers_) {
    peer.to.rows = std::ssize(values);
    peer.send = bytes(values.data());
  }
  return receive_on_host<T>(exchange);
}

template <typename T>
FromRanks<T> Communicator::exchange(std::string_view operation,
                                    std::span<const std::type_identity_t<T>> values,
                                    std::span<const std::int64_t> counts) {
  check_counts("exchange", counts, 1, values.size());
  Exchange exchange =
      begin_on_host({Collective::kExchange, operation, element_type<T>(), sizeof(T)});
  send_in_rank_order(bytes(values.data()), counts);
  return receive_on_host<T>(exchange);
}

template <typename T>
FromRanks<T> Communicator::receive_on_host(Exchange& exchange) {
  FromRanks<T> received;
  transfer(exchange, [&] {
    for (const Peer& peer : peers_) received.counts.push_back(peer.from.rows);
    received.values.resize(sum_of(received.counts));
    place_in_rank_order(bytes(received.values.data()));
  });
  return received;
}

template <typename T>
void Communicator::sum(std::string_view operation, std::span<T> values) {
  const std::int64_t size = std::ssize(values);
  Exchange exchange =
      begin_on_host({Collective::kSum, operation, element_type<T>(), sizeof(T), size});
  if (size_ == 1) return;
  for (Peer& peer : peers_) {
    peer.to.rows = peer.expected_rows = size;
    peer.send = bytes(values.data());
  }
  const std::vector<T> terms = receive_on_host<T>(exchange).values;
  std::copy_n(terms.begin(), size, values.begin());
  for (std::int64_t i = size; i < std::ssize(terms); ++i) values[i % size] += terms[i];
}

std::vector<std::int64_t> Communicator::gather_int64(std::string_view operation,
                                                     std::int64_t value) {
  return gather<std::int64_t>(operation, {&value, 1}).values;
}

std::vector<std::string> Communicator::gather_strings(std::string_view operation,
                                                      std::string_view value) {
  const auto [characters, counts] = gather<std::byte>(operation, std::as_bytes(std::span(value)));
  const char* next = reinterpret_cast<const char*>(characters.data());
  std::vector<std::string> strings;
  for (const std::int64_t count : counts) {
    strings.emplace_back(next, count);
    next += count;
  }
  return strings;
}

/// `size` values, counts[r] rows of `width` of them for or from rank r.
void Communicator::check_counts(std::string_view collective, std::span<const std::int64_t> counts,
                                std::int64_t width, std::size_t size) const {
  check(std::ssize(counts) == size_, fmt::format("{} needs a count for every rank", collective));
  check(width >= 0 && std::all_of(counts.begin(), counts.end(), [](auto n) { return n >= 0; }) &&
            sum_of(counts) * width == static_cast<std::int64_t>(size),
        fmt::format("{} needs as many rows as its counts say", collective));
}

template <typename T>
void Communicator::all_to_all(std::string_view operation,
                              const RowsByRank<const std::type_identity_t<T>>& send,
                              const RowsByRank<std::type_identity_t<T>>& receive,
                              std::int64_t width, const Stream& stream) {
  check_counts("all_to_all", send.counts, width, send.rows.size());
  check_counts("all_to_all", receive.counts, width, receive.rows.size());
  const Header call(Collective::kAllToAll, operation, element_type<T>(), row_bytes<T>(width));
  Exchange exchange = begin(call, stream);
  send_in_rank_order(bytes(send.rows.device_data()), send.counts);
  expect(receive.counts);
  transfer(exchange, [&] { place_in_rank_order(bytes(receive.rows.device_data())); });
}

template <typename T>
void Communicator::all_gather(std::string_view operation,
                              DeviceSpan<const std::type_identity_t<T>> rows,
                              const RowsByRank<std::type_identity_t<T>>& gathered,
                              std::int64_t width, const Stream& stream) {
  check_counts("all_gather", gathered.counts, width, gathered.rows.size());
  check(gathered.counts[rank_] * width == static_cast<std::int64_t>(rows.size()),
        "all_gather needs as many rows as its counts say");
  const Header call(Collective::kAllGather, operation, element_type<T>(), row_bytes<T>(width),
                    hash_of(gathered.counts));
  Exchange exchange = begin(call, stream);
  send_to_all(bytes(rows.device_data()), gathered.counts[rank_]);
  expect(gathered.counts);
  transfer(exchange, [&] { place_in_rank_order(bytes(gathered.rows.device_data())); });
}

struct Communicator::Part {
  std::int64_t begin;
  std::int64_t count;
};

/// Sends parts[r] of `values` to rank r. The sum of what all ranks sent here, in rank order, in
/// `terms`.
template <typename T>
DeviceSpan<T> Communicator::reduce(const Header& call, const T* values, std::span<const Part> parts,
                                   Buffer<std::byte>& terms, const Stream& stream) {
  const std::int64_t count = parts[rank_].count;
  Exchange exchange = begin(call, stream);
  for (int peer = 0; peer < size_; ++peer) {
    peers_[peer].to.rows = parts[peer].count;
    peers_[peer].expected_rows = count;
    peers_[peer].send = bytes(values + parts[peer].begin);
  }
  std::byte* const to = terms.resize_discard(row_bytes<T>(count) * size_, stream).device_data();
  transfer(exchange, [&] { place_in_rank_order(to); });
  T* const sum = reinterpret_cast<T*>(to);
  std::vector<Addition<T>> additions;
  for (int peer = 1; peer < size_; ++peer) additions.push_back({sum, sum + peer * count});
  add_in_order<T>(additions, count, stream);
  return {sum, static_cast<std::size_t>(count)};
}

template <typename T>
void Communicator::all_reduce_sum(std::string_view operation, DeviceSpan<T> values,
                                  const Stream& stream) {
  const auto size = static_cast<std::int64_t>(values.size());
  const Header call(Collective::kAllReduceSum, operation, element_type<T>(), sizeof(T), size);
  if (size_ == 1) return;
  Buffer<std::byte> device_terms;
  Buffer<std::byte>& terms = terms_on(stream, device_terms);
  std::vector<Part> parts(size_, {0, size});
  if (row_bytes<T>(size) <= kSmallBytes) {  // one exchange, and every rank sums all
    copy<T>(reduce(call, values.device_data(), parts, terms, stream), values, stream);
    return;
  }
  for (int peer = 0; peer < size_; ++peer) {
    const std::int64_t begin = size * peer / size_;
    parts[peer] = {begin, size * (peer + 1) / size_ - begin};
  }
  const DeviceSpan<T> sum = reduce(call, values.device_data(), parts, terms, stream);
  Exchange exchange = begin(call, stream);
  for (int peer = 0; peer < size_; ++peer) {
    peers_[peer].to.rows = parts[rank_].count;
    peers_[peer].expected_rows = parts[peer].count;
    peers_[peer].send = bytes(sum.device_data());
  }
  transfer(exchange, [&] { place_in_rank_order(bytes(values.device_data())); });
}

template <typename T>
void Communicator::reduce_scatter_sum(std::string_view operation,
                                      const RowsByRank<const std::type_identity_t<T>>& values,
                                      DeviceSpan<std::type_identity_t<T>> part,
                                      const Stream& stream) {
  check_counts("reduce_scatter_sum", values.counts, 1, values.rows.size());
  check(values.counts[rank_] == static_cast<std::int64_t>(part.size()),
        "reduce_scatter_sum needs as many rows as its counts say");
  std::vector<Part> parts;
  std::int64_t begin = 0;
  for (const std::int64_t count : values.counts) {
    parts.push_back({begin, count});
    begin += count;
  }
  const Header call(Collective::kReduceScatterSum, operation, element_type<T>(), sizeof(T),
                    hash_of(values.counts));
  Buffer<std::byte> device_terms;
  copy<T>(reduce(call, values.rows.device_data(), parts, terms_on(stream, device_terms), stream),
          part, stream);
}

template <typename T>
void Communicator::broadcast(std::string_view operation, DeviceSpan<T> values, int root,
                             const Stream& stream) {
  check(root >= 0 && root < size_, "broadcast needs a root among the ranks");
  const auto size = static_cast<std::int64_t>(values.size());
  Header call(Collective::kBroadcast, operation, element_type<T>(), sizeof(T), size);
  call.root = root;
  Exchange exchange = begin(call, stream);
  send_to_all(bytes(values.device_data()), rank_ == root ? size : 0);
  for (int peer = 0; peer < size_; ++peer) peers_[peer].expected_rows = peer == root ? size : 0;
  transfer(exchange, [&] { peers_[root].receive = bytes(values.device_data()); });
}

#define SERRATE_MOVE(T)                                                                         \
  template FromRanks<T> Communicator::gather<T>(std::string_view, std::span<const T>);          \
  template FromRanks<T> Communicator::exchange<T>(std::string_view, std::span<const T>,         \
                                                  std::span<const std::int64_t>);               \
  template void Communicator::all_to_all<T>(std::string_view, const RowsByRank<const T>&,       \
                                            const RowsByRank<T>&, std::int64_t, const Stream&); \
  template void Communicator::all_gather<T>(std::string_view, DeviceSpan<const T>,              \
                                            const RowsByRank<T>&, std::int64_t, const Stream&); \
  template void Communicator::broadcast<T>(std::string_view, DeviceSpan<T>, int, const Stream&);
#define SERRATE_SUM(T)                                                                            \
  template void Communicator::sum<T>(std::string_view, std::span<T>);                             \
  template void Communicator::all_reduce_sum<T>(std::string_view, DeviceSpan<T>, const Stream&);  \
  template void Communicator::reduce_scatter_sum<T>(std::string_view, const RowsByRank<const T>&, \
                                                    DeviceSpan<T>, const Stream&);
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
