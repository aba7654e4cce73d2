#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "serrate/buffer.h"

namespace serrate {

/// A group of ranks that exchange jagged data. Collective: every rank calls the same operations in
/// the same order; each carries a header {sequence number, operation, row size, counts}, so ranks
/// that disagree get an Error that names rank, operation and sequence number. An operation that
/// a peer does not join within the deadline ends with an Error (retryable) that names the peer.
/// After an Error the communicator is of no further use. `operation` is the caller's name for the
/// exchange ("input_dist"); it is part of what has to agree.
///
/// Spans may be on the host or on the stream's device. Sums are taken in rank order on every
/// implementation, so results are bit-identical between them.
class Communicator {
 public:
  virtual ~Communicator() = default;
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
  void all_to_all(std::string_view operation, std::span<const T> send,
                  std::span<const std::int64_t> send_counts, std::int64_t width, Buffer<T>& receive,
                  std::vector<std::int64_t>& receive_counts, const Stream& stream);

  /// Every rank's rows, rank after rank; ranks may give different numbers of them.
  template <typename T>
  void all_gather(std::string_view operation, std::span<const T> rows, std::int64_t width,
                  Buffer<T>& gathered, std::vector<std::int64_t>& counts, const Stream& stream);

  /// values = the sum over ranks, the same bits on every rank. float, double or std::int64_t.
  template <typename T>
  void all_reduce_sum(std::string_view operation, std::span<T> values, const Stream& stream);

  /// Of counts.size() == size() consecutive parts of `values`, part rank() summed over the ranks.
  template <typename T>
  void reduce_scatter_sum(std::string_view operation, std::span<const T> values,
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
  /// deadline. Collective over this communicator.
  std::unique_ptr<Communicator> split(int color);

 protected:
  Communicator(int rank, int size) : rank_(rank), size_(size) {}

  /// What every message of an exchange starts with.
  struct Header;

 private:
  // ... implementation hooks, see comm/
  int rank_;
  int size_;
  std::chrono::milliseconds deadline_{120'000};
  std::int64_t sequence_ = 0;
};

}  // namespace serrate
