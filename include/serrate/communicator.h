#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "serrate/buffer.h"
#include "serrate/device_span.h"
#include "serrate/stream.h"

namespace serrate {

/// What a host collective brought: the values from rank 0, 1, ..., counts[r] of them from rank r.
template <typename T>
struct FromRanks {
  std::vector<T> values;
  std::vector<std::int64_t> counts;
};

/// Rows in device memory, rank after rank: counts[r] of them are for, or come from, rank r.
template <typename T>
struct RowsByRank {
  DeviceSpan<T> rows;
  std::span<const std::int64_t> counts;
};

/// A group of ranks that exchange jagged data. Collective: every rank calls the same operations in
/// the same order; each carries a header {sequence number, operation, row size, counts}, so ranks
/// that disagree get an Error that names rank, operation and sequence number. An operation that
/// a peer does not join within the deadline ends with an Error (retryable) that names the peer.
/// After an Error the communicator is of no further use. `operation` is the caller's name for the
/// exchange ("input_dist"), at most 23 characters; it is part of what has to agree.
///
/// Sums are taken in rank order on every implementation, so results are bit-identical between
/// them. T is float, double, std::int64_t, std::int32_t, std::uint8_t or std::byte; for sums float,
/// double or std::int64_t.
class Communicator {
 public:
  /// An exchange in progress: for implementations, see comm/exchange.h.
  struct Header;
  struct Peer;
  struct Exchange;

  virtual ~Communicator();
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  /// How long an operation waits for its peers; 120 s unless set.
  std::chrono::milliseconds deadline() const { return deadline_; }
  void set_deadline(std::chrono::milliseconds deadline) { deadline_ = deadline; }

  // Host collectives: a few words that the ranks have on the host, such as counts, flags and
  // losses. They block until every rank has come.

  void barrier(std::string_view operation);

  /// The values of every rank; ranks may give different numbers of them.
  template <typename T>
  FromRanks<T> gather(std::string_view operation, std::span<const std::type_identity_t<T>> values);
  /// One value per rank.
  std::vector<std::int64_t> gather_int64(std::string_view operation, std::int64_t value);
  /// One string per rank.
  std::vector<std::string> gather_strings(std::string_view operation, std::string_view value);

  /// counts[r] of the `values` are for rank r, in rank order. For what payload collectives have to
  /// know of their peers.
  template <typename T>
  FromRanks<T> exchange(std::string_view operation, std::span<const std::type_identity_t<T>> values,
                        std::span<const std::int64_t> counts);

  /// values = the sum over ranks, the same bits on every rank.
  template <typename T>
  void sum(std::string_view operation, std::span<T> values);

  /// The ranks that give the same color, ordered by rank, as a group of their own with the same
  /// deadline. Collective over this communicator. Errors name ranks of the first communicator,
  /// which the groups were split from.
  std::unique_ptr<Communicator> split(int color);

  // Payload collectives: memory of the stream's device, in the order of the stream; on a GPU they
  // return without waiting for it. Every rank knows what will come from its peers, from a host
  // collective before: a peer that sends something else is an Error. The device is of one type on
  // all ranks.

  /// Rows of `width` values; send.counts[r] of them go to rank r, receive.counts[r] come from it.
  template <typename T>
  void all_to_all(std::string_view operation, const RowsByRank<const std::type_identity_t<T>>& send,
                  const RowsByRank<std::type_identity_t<T>>& receive, std::int64_t width,
                  const Stream& stream);

  /// Every rank's rows, of which there are gathered.counts[rank()] here.
  template <typename T>
  void all_gather(std::string_view operation, DeviceSpan<const std::type_identity_t<T>> rows,
                  const RowsByRank<std::type_identity_t<T>>& gathered, std::int64_t width,
                  const Stream& stream);

  /// values = the sum over ranks, the same bits on every rank.
  template <typename T>
  void all_reduce_sum(std::string_view operation, DeviceSpan<T> values, const Stream& stream);

  /// Part rank() of the values, summed over the ranks.
  template <typename T>
  void reduce_scatter_sum(std::string_view operation,
                          const RowsByRank<const std::type_identity_t<T>>& values,
                          DeviceSpan<std::type_identity_t<T>> part, const Stream& stream);

  /// values of rank `root` on every rank; all give a span of the same size.
  template <typename T>
  void broadcast(std::string_view operation, DeviceSpan<T> values, int root, const Stream& stream);

  /// Exchanges so far, of both families and of the host's alone.
  std::int64_t num_exchanges() const { return sequence_; }
  std::int64_t num_host_exchanges() const { return host_exchanges_; }

  /// This rank cannot go on: where ranks are threads, peers that wait for it get an Error with its
  /// rank and `why` at once. Ranks that are processes end their job instead (abort_job).
  void abandon(std::string_view why) noexcept;

 protected:
  Communicator(int rank, int size);

  /// The rank as errors name it.
  int named(int rank) const { return names_[static_cast<std::size_t>(rank)]; }
  /// "rank 1: all_to_all \"input_dist\" #12", how errors begin.
  std::string describe(const Exchange& exchange) const;
  Error deadline_error(const Exchange& exchange, const std::vector<int>& missing) const;

 private:
  // An implementation moves an exchange in two halves, each bounded by its deadline. Between them
  // the headers are checked and memory for the rows is found. Not called for a group of one.

  /// Fills `from` of every peer; may send rows already.
  virtual void exchange_headers(Exchange& exchange) = 0;
  /// Fills `receive` of every peer; when it returns, nobody reads `send` any more.
  virtual void exchange_rows(Exchange& exchange) = 0;
  /// Called when an exchange failed on this rank, or between exchanges by abandon().
  virtual void give_up(std::string_view why) noexcept = 0;
  /// The group of `members`, ranks of this communicator; called by all of its ranks at once.
  virtual std::unique_ptr<Communicator> split_group(const std::vector<int>& members) = 0;

  struct Part;

  Exchange begin(const Header& call, const Stream& stream);
  Exchange begin_on_host(const Header& call);
  void transfer(Exchange& exchange, const std::function<void()>& place_rows);
  void check_header(const Exchange& exchange, int peer) const;
  void check_counts(std::string_view collective, std::span<const std::int64_t> counts,
                    std::int64_t width, std::size_t size) const;
  void send_in_rank_order(const std::byte* from, std::span<const std::int64_t> counts);
  void send_to_all(const std::byte* from, std::int64_t rows);
  void expect(std::span<const std::int64_t> counts);
  void place_in_rank_order(std::byte* to);
  template <typename T>
  FromRanks<T> receive_on_host(Exchange& exchange);
  Buffer<std::byte>& terms_on(const Stream& stream, Buffer<std::byte>& own);
  template <typename T>
  DeviceSpan<T> reduce(const Header& call, const T* values, std::span<const Part> parts,
                       Buffer<std::byte>& terms, const Stream& stream);

  int rank_;
  int size_;
  std::chrono::milliseconds deadline_{120'000};
  std::int64_t sequence_ = 0, host_exchanges_ = 0;
  std::string failure_;           // why this communicator is of no further use
  std::vector<int> names_;        // rank of the first communicator, for each rank of this one
  std::vector<Peer> peers_;       // of the exchange in progress
  const Stream host_;             // what host collectives are ordered on: nothing
  Buffer<std::byte> host_terms_;  // of a sum on the CPU, kept for its memory
};

}  // namespace serrate
