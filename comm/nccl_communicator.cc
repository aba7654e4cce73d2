#include "comm/nccl_communicator.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstring>
#include <exception>
#include <utility>

#include "comm/nccl_sharing.h"
#include "comm/together.h"
#include "src/core/cuda_check.h"
#include "src/core/dispatch.h"

namespace serrate {
namespace {

/// The Error of a call of NCCL on the host.
Error call_error(const std::string& what, ncclResult_t result, std::chrono::milliseconds deadline) {
  if (result == ncclInProgress) {
    return Error(fmt::format("{}: NCCL was not ready within {} ms (another rank was stopped or "
                             "lost): restart the job, with a longer timeout if one was only slow",
                             what, deadline.count()),
                 ErrorKind::kRetryable);
  }
  const bool is_remote = result == ncclRemoteError || result == ncclSystemError;
  return Error(fmt::format("{}: {}", what, nccl_message(result)),
               is_remote ? ErrorKind::kRetryable : ErrorKind::kFailure);
}

}  // namespace

NcclCommunicator::NcclCommunicator(std::unique_ptr<Communicator> host,
                                   std::shared_ptr<NcclWatchdog> watchdog)
    : Communicator(host->rank(), host->size()),
      host_(std::move(host)),
      watchdog_(std::move(watchdog)) {
  set_deadline(host_->deadline());
  start();
  watchdog_->remember(handle_);
}

void NcclCommunicator::start() {
  ncclUniqueId id{};
  const auto check_call = [&](ncclResult_t result) {
    if (result != ncclSuccess) throw call_error("starting NCCL", result, deadline());
  };
  together(*host_, "nccl id", [&] {
    if (rank() == 0) check_call(ncclGetUniqueId(&id));
  });
  const std::span<const std::byte> bytes = std::as_bytes(std::span(id.internal));
  const FromRanks<std::byte> received =
      host_->gather<std::byte>("nccl id", rank() == 0 ? bytes : std::span<const std::byte>());
  std::memcpy(id.internal, received.values.data(), received.values.size());
  together(*host_, "nccl start", [&] {
    check_call(handle_.start(id, rank(), size(), watchdog_->device(),
                             NcclHandle::Clock::now() + deadline()));
  });
}

NcclCommunicator::~NcclCommunicator() {
  watchdog_->forget(handle_);
  if (!failed_ && std::uncaught_exceptions() == 0)
    handle_.finish(NcclHandle::Clock::now() + deadline());
}

/// "0, 2": ranks as errors name them.
std::string NcclCommunicator::group_name() const {
  std::vector<int> names(static_cast<std::size_t>(size()));
  for (int peer = 0; peer < size(); ++peer) names[static_cast<std::size_t>(peer)] = named(peer);
  return fmt::format("{}", fmt::join(names, ", "));
}

void NcclCommunicator::exchange_headers(Exchange& exchange) {
  watchdog_->check_health();
  host_->set_deadline(deadline());
  number_ = watchdog_->recorder().begin(exchange.call().name(), group_name());
  if (exchange.stream.device() == Device::cpu()) {
    exchange.exchange_headers_by(*host_);
  } else {
    exchange_device_headers(exchange);
  }
}

void NcclCommunicator::exchange_device_headers(Exchange& exchange) {
  check(exchange.stream.device() == watchdog_->device(),
        "a communicator moves rows of the GPU that it was made for");
  Peer letter;
  letter.to = exchange.call();
  letter.to.device = DeviceType::kCpu;
  letter.to.type = ElementType::kBytes;
  letter.to.row_bytes = sizeof(Header);
  letter.to.extent = letter.to.root = 0;
  letter.to.rows = letter.expected_rows = 1;
  letters_.assign(static_cast<std::size_t>(size()), letter);
  for (int peer = 0; peer < size(); ++peer) {
    letters_[peer].send = reinterpret_cast<const std::byte*>(&exchange.peers[peer].to);
    letters_[peer].receive = reinterpret_cast<std::byte*>(&exchange.peers[peer].from);
  }
  Exchange headers{letters_, host_stream_, exchange.deadline};
  headers.exchange_headers_by(*host_);
  for (int peer = 0; peer < size(); ++peer) headers.check_header_by(*host_, peer);
  try {
    headers.exchange_rows_by(*host_);
  } catch (const Error&) {
    // Another rank may have seen sooner that the ranks disagree, and failed: say what it said.
    for (int peer = 0; peer < size(); ++peer) {
      if (exchange.peers[peer].from.sequence > 0) exchange.check_header_by(*this, peer);
    }
    throw;
  }
}

void NcclCommunicator::exchange_rows(Exchange& exchange) {
  if (exchange.stream.device() == Device::cpu()) {
    exchange.exchange_rows_by(*host_);
    watchdog_->recorder().done(number_);
  } else {
    exchange_device_rows(exchange);
  }
}

void NcclCommunicator::exchange_device_rows(Exchange& exchange) {
  const Stream& stream = exchange.stream;
  std::int64_t sent = 0, received = 0;
  const auto send_and_receive = [&](ncclComm_t comm) {
    ncclResult_t result = ncclSuccess;
    for (int peer = 0; peer < size(); ++peer) {
      const Peer& rows = exchange.peers[peer];
      // Rows that stay in their place. NCCL would take them for two buffers that overlap.
      const bool in_place = peer == rank() && rows.send == rows.receive;
      const std::int64_t to = in_place ? 0 : rows.send_bytes();
      const std::int64_t from = in_place ? 0 : rows.receive_bytes();
      sent += to;
      received += from;
      for (const ncclResult_t call : {ncclSend(rows.send, static_cast<std::size_t>(to), ncclInt8,
                                               peer, comm, cuda_stream(stream)),
                                      ncclRecv(rows.receive, static_cast<std::size_t>(from),
                                               ncclInt8, peer, comm, cuda_stream(stream))}) {
        if (call != ncclSuccess && call != ncclInProgress) result = call;
      }
    }
    return result;
  };
  const ncclResult_t result = dispatch_device(
      stream.device(), [&](auto) { return handle_.group(send_and_receive, exchange.deadline); });
  watchdog_->check_health();
  if (result != ncclSuccess) throw call_error(describe(exchange), result, deadline());
  watchdog_->recorder().queued(number_, sent, received);
  watchdog_->watch({describe(exchange), number_, &handle_, exchange.deadline, deadline()}, stream);
}

void NcclCommunicator::give_up(std::string_view why) noexcept {
  failed_ = true;
  host_->abandon(why);
  watchdog_->write_record(why);
}

std::unique_ptr<Communicator> NcclCommunicator::split_group(const std::vector<int>& members) {
  std::unique_ptr<Communicator> host = host_->split(members.front());
  if (host->size() == 1) return host;
  return std::make_unique<NcclCommunicator>(std::move(host), watchdog_);
}

std::unique_ptr<Communicator> NcclCommunicator::make(std::unique_ptr<Communicator> host,
                                                     Device device, NcclOptions options) {
  std::string identity;
  together(*host, "gpu", [&] { identity = gpu_identity(device); });
  prepare_gpu_sharing(host->gather_strings("gpu", identity), host->rank(), device, options.sharing);
  auto watchdog =
      std::make_shared<NcclWatchdog>(host->rank(), host->size(), device, std::move(options));
  return std::make_unique<NcclCommunicator>(std::move(host), std::move(watchdog));
}

}  // namespace serrate
