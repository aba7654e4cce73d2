#pragma once

#include <memory>
#include <string>
#include <vector>

#include "comm/exchange.h"
#include "comm/nccl_handle.h"
#include "comm/nccl_watchdog.h"
#include "serrate/communicator.h"

namespace serrate {

/// Rows in GPU memory go through NCCL, as a group of one send and one receive for each rank; all
/// else goes through `host`. The headers of an exchange of rows are the rows of a host exchange, so
/// that ranks agree before NCCL, which checks nothing, is called.
class NcclCommunicator final : public Communicator {
 public:
  /// Collective over `host`, as is the constructor. At least two ranks.
  static std::unique_ptr<Communicator> make(std::unique_ptr<Communicator> host, Device device,
                                            NcclOptions options);
  NcclCommunicator(std::unique_ptr<Communicator> host, std::shared_ptr<NcclWatchdog> watchdog);
  ~NcclCommunicator() override;

 private:
  void exchange_headers(Exchange& exchange) override;
  void exchange_rows(Exchange& exchange) override;
  void give_up(std::string_view why) noexcept override;
  std::unique_ptr<Communicator> split_group(const std::vector<int>& members) override;

  void start();
  void exchange_device_headers(Exchange& exchange);
  void exchange_device_rows(Exchange& exchange);
  std::string group_name() const;

  std::unique_ptr<Communicator> host_;
  std::shared_ptr<NcclWatchdog> watchdog_;  // of all communicators of the rank
  const Stream host_stream_;
  NcclHandle handle_;
  std::vector<Peer> letters_;  // a host exchange whose rows are headers; peers may read them late
  std::int64_t number_ = 0;    // of the exchange in progress, in the flight recorder
  bool failed_ = false;
};

}  // namespace serrate
