#pragma once

#include <mpi.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "comm/exchange.h"
#include "comm/mpi_staging.h"
#include "serrate/communicator.h"

namespace serrate {

/// Ranks are processes. One short message to every peer carries the header and, if they are few and
/// on the host, the rows; others follow in messages of their own.
class MpiCommunicator final : public Communicator {
 public:
  /// Takes over `comm`.
  MpiCommunicator(int rank, int size, MPI_Comm comm, std::int64_t max_count);
  ~MpiCommunicator() override;

 private:
  struct Envelope {
    Header header;
    std::byte rows[kSmallBytes];
  };

  void exchange_headers(Exchange& exchange) override;
  void exchange_rows(Exchange& exchange) override;
  void give_up(std::string_view why) noexcept override;
  std::unique_ptr<Communicator> split_group(const std::vector<int>& members) override;

  void exchange_device_rows(Exchange& exchange);
  void exchange_host_rows(Exchange& exchange);
  template <typename Start>
  void start_chunks(int peer, std::int64_t rows, std::int64_t row_bytes, Start&& start);
  MPI_Request* new_request(int peer);
  void wait(const Exchange& exchange);

  MPI_Comm comm_;
  std::int64_t max_count_;
  std::vector<Envelope> outgoing_, incoming_;  // for and from each rank
  // The exchange in progress: receives, then sends; and the peer that each waits for.
  std::vector<MPI_Request> requests_;
  std::vector<int> request_peers_;
  std::size_t num_receives_ = 0;
  std::optional<MpiStaging> staging_;  // of the device that rows were on last
  bool failed_ = false;
};

}  // namespace serrate
