#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "serrate/buffer.h"

namespace serrate {

/// A group of ranks that exchange jagged data. Collective: every rank calls the same operations in
/// the same order; each carries a header {sequence number, operation, row size, counts}, so ranks
/// that disagree get an Error that names rank, operation and sequence number. An operation that
/// a peer does not join within the deadline ends with an Error (retryable) that names the peer.
/// After an Error the communicator is of no further use. `operation` is the caller's name for the
/// exchange ("input_dist"), at most 23 characters; it is part of what has to agree.
///
/// Spans may be on the host or on the stream's device. Sums are taken in rank order on every
/// implementation, so results are bit-identical between them. T is float, double, std::int64_t,
/// std::int32_t, std::uint8_t or std::byte; for sums float, double or std::int64_t.
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

  /// Jagged all-to-all. Rows of `width` values; send_counts[r] rows go to rank r, in rank order in
  /// `send`. `receive` becomes the rows from rank 0, 1, ...; receive_counts[r] of them from rank r.
  template <typename T>
  void all_to_all(std::string_view operation, std::span<const std::type_identity_t<T>> send,
                  std::span<const std::int64_t> send_counts, std::int64_t width, Buffer<T>& receive,
                  std::vector<std::int64_t>& receive_counts, const Stream& stream);

  /// Every rank's rows, rank after rank; ranks may give different numbers of them.
  template <typename T>
  void all_gather(std::string_view operation, std::span<const std::type_identity_t<T>> rows,
                  std::int64_t width, Buffer<T>& gathered, std::vector<std::int64_t>& counts,
                  const Stream& stream);

  /// values = the sum over ranks, the same bits on every rank.
  template <typename T>
  void all_reduce_sum(std::string_view operation, std::span<T> values, const Stream& stream);

  /// Of counts.size() == size() consecutive parts of `values`, part rank() summed over the ranks.
  template <typename T>
  void reduce_scatter_sum(std::string_view operation,
                          std::span<const std::type_identity_t<T>> values,
                          std::span<const std::int64_t> counts, std::span<T> part,
                          const Stream& stream);

  /// values of rank `root` on every rank; all give a span of the same size.
  template <typename T>
  void broadcast(std::string_view operation, std::span<T> values, int root, const Stream& stream);

  void barrier(std::string_view operation);

  /// One value per rank, on the host.
  std::vector<std::int64_t> gather_int64(std::string_view operation, std::int64_t value);
  /// One string per rank.
  std::vector<std::string> gather_strings(std::string_view operation, std::string_view value);

  /// The ranks that give the same color, ordered by rank, as a group of their own with the same
  /// deadline. Collective over this communicator. Errors name ranks of the first communicator,
  /// which the groups were split from.
  std::unique_ptr<Communicator> split(int color);

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
  template <typename PlaceRows>
  void transfer(Exchange& exchange, PlaceRows&& place_rows);
  void check_header(const Exchange& exchange, int peer) const;
  void place_in_rank_order(std::byte* to);
  std::int64_t announced_rows(std::vector<std::int64_t>& counts) const;
  template <typename T>
  std::span<T> reduce(const Header& call, const T* values, std::span<const Part> parts,
                      const Stream& stream);

  int rank_;
  int size_;
  std::chrono::milliseconds deadline_{120'000};
  std::int64_t sequence_ = 0;
  std::string failure_;        // why this communicator is of no further use
  std::vector<int> names_;     // rank of the first communicator, for each rank of this one
  std::vector<Peer> peers_;    // of the exchange in progress
  Buffer<std::byte> scratch_;  // terms of a sum, on the host
};

}  // namespace serrate
