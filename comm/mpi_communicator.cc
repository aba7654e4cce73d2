#include "comm/mpi_communicator.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "comm/idle.h"
#include "comm/mpi_check.h"
#include "serrate/mpi_communicator.h"

namespace serrate {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kEnvelopeTag = 1;
constexpr int kRowsTag = 2;

void copy_on_host(const std::byte* from, std::byte* to, std::int64_t bytes) {
  if (bytes > 0 && from != to) std::memcpy(to, from, static_cast<std::size_t>(bytes));
}

/// The communicator of the calling rank in `comm`, which it takes over.
std::unique_ptr<Communicator> own(MPI_Comm comm, std::int64_t max_count) {
  int rank = 0, size = 0;
  mpi_check(MPI_Comm_rank(comm, &rank));
  mpi_check(MPI_Comm_size(comm, &size));
  return std::make_unique<MpiCommunicator>(rank, size, comm, max_count);
}

}  // namespace

MpiCommunicator::MpiCommunicator(int rank, int size, MPI_Comm comm, std::int64_t max_count)
    : Communicator(rank, size),
      comm_(comm),
      max_count_(max_count),
      outgoing_(size),
      incoming_(size) {
  check(max_count >= 1 && max_count <= std::numeric_limits<int>::max(),
        "the largest count of an MPI call is from 1 to INT_MAX");
  mpi_check(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN));
}

MpiCommunicator::~MpiCommunicator() {
  int finalized = 0;
  MPI_Finalized(&finalized);
  if (!failed_ && !finalized) MPI_Comm_free(&comm_);
}

MPI_Request* MpiCommunicator::new_request(int peer) {
  request_peers_.push_back(peer);
  return &requests_.emplace_back(MPI_REQUEST_NULL);
}

void MpiCommunicator::exchange_headers(Exchange& exchange) {
  const bool on_host = exchange.stream.device() == Device::cpu();
  for (int i = 1; i < size(); ++i) {
    const int peer = (rank() + i) % size();
    mpi_check(MPI_Irecv(&incoming_[peer], sizeof(Envelope), MPI_BYTE, peer, kEnvelopeTag, comm_,
                        new_request(peer)));
  }
  num_receives_ = requests_.size();
  for (int i = 1; i < size(); ++i) {
    const int peer = (rank() + i) % size();
    const Peer& rows = exchange.peers[peer];
    outgoing_[peer].header = rows.to;
    const bool enclosed = on_host && rows.send_bytes() <= kSmallBytes;
    const std::int64_t row_bytes = enclosed ? rows.send_bytes() : 0;
    copy_on_host(rows.send, outgoing_[peer].rows, row_bytes);
    mpi_check(MPI_Isend(&outgoing_[peer], static_cast<int>(sizeof(Header) + row_bytes), MPI_BYTE,
                        peer, kEnvelopeTag, comm_, new_request(peer)));
  }
  wait(exchange);
  for (int peer = 0; peer < size(); ++peer) {
    exchange.peers[peer].from = peer == rank() ? exchange.peers[peer].to : incoming_[peer].header;
  }
}

/// start(offset in bytes, count, type, request) for each message that carries some of the rows:
/// MPI counts are int, so whole rows are counted, or bytes when a row is longer than a message.
template <typename Start>
void MpiCommunicator::start_chunks(int peer, std::int64_t rows, std::int64_t row_bytes,
                                   Start&& start) {
  if (rows * row_bytes <= kSmallBytes) return;  // came in the envelope
  const std::int64_t unit = row_bytes <= max_count_ ? row_bytes : 1;
  MPI_Datatype type;
  mpi_check(MPI_Type_contiguous(static_cast<int>(unit), MPI_BYTE, &type));
  mpi_check(MPI_Type_commit(&type));
  const std::int64_t units = rows * row_bytes / unit;
  for (std::int64_t begin = 0; begin < units; begin += max_count_) {
    const std::int64_t count = std::min(max_count_, units - begin);
    mpi_check(start(begin * unit, static_cast<int>(count), type, new_request(peer)));
  }
  mpi_check(MPI_Type_free(&type));  // when the last message that uses it has gone
}

void MpiCommunicator::exchange_host_rows(Exchange& exchange) {
  for (int i = 1; i < size(); ++i) {
    const int peer = (rank() + i) % size();
    const Peer& rows = exchange.peers[peer];
    start_chunks(peer, rows.from.rows, rows.from.row_bytes,
                 [&](std::int64_t offset, int count, MPI_Datatype type, MPI_Request* request) {
                   return MPI_Irecv(rows.receive + offset, count, type, peer, kRowsTag, comm_,
                                    request);
                 });
  }
  num_receives_ = requests_.size();
  for (int i = 1; i < size(); ++i) {
    const int peer = (rank() + size() - i) % size();
    const Peer& rows = exchange.peers[peer];
    start_chunks(peer, rows.to.rows, rows.to.row_bytes,
                 [&](std::int64_t offset, int count, MPI_Datatype type, MPI_Request* request) {
                   return MPI_Isend(rows.send + offset, count, type, peer, kRowsTag, comm_,
                                    request);
                 });
  }
  for (int peer = 0; peer < size(); ++peer) {
    const Peer& rows = exchange.peers[peer];
    if (peer == rank()) {
      copy_on_host(rows.send, rows.receive, rows.receive_bytes());
    } else if (rows.receive_bytes() <= kSmallBytes) {
      copy_on_host(incoming_[peer].rows, rows.receive, rows.receive_bytes());
    }
  }
  wait(exchange);
}

void MpiCommunicator::wait(const Exchange& exchange) {
  const Clock::time_point start = Clock::now();
  std::vector<int> indices(requests_.size());
  for (;;) {
    int completed = 0;
    mpi_check(MPI_Testsome(static_cast<int>(requests_.size()), requests_.data(), &completed,
                           indices.data(), MPI_STATUSES_IGNORE));
    if (completed == MPI_UNDEFINED) break;  // none is left
    if (completed > 0) continue;
    const Clock::time_point now = Clock::now();
    if (now >= exchange.deadline) {
      std::vector<int> missing;
      for (std::size_t i = 0; i < requests_.size(); ++i) {
        if (requests_[i] != MPI_REQUEST_NULL) missing.push_back(request_peers_[i]);
      }
      std::sort(missing.begin(), missing.end());
      missing.erase(std::unique(missing.begin(), missing.end()), missing.end());
      throw deadline_error(exchange, missing);
    }
    idle(now - start);
  }
  requests_.clear();
  request_peers_.clear();
}

/// A peer that comes late must not write into memory that is no longer ours. Nothing here waits:
/// the peer may be lost.
void MpiCommunicator::give_up(std::string_view) noexcept {
  failed_ = true;
  if (staging_) staging_->cancel_receives();
  for (std::size_t i = 0; i < std::min(num_receives_, requests_.size()); ++i) {
    if (requests_[i] == MPI_REQUEST_NULL) continue;
    MPI_Cancel(&requests_[i]);
    MPI_Request_free(&requests_[i]);
  }
}

void MpiCommunicator::exchange_rows(Exchange& exchange) {
  if (exchange.stream.device() == Device::cpu()) {
    exchange_host_rows(exchange);
  } else {
    exchange_device_rows(exchange);
  }
}

void MpiCommunicator::exchange_device_rows(Exchange& exchange) {
  const Device device = exchange.stream.device();
  if (!staging_ || staging_->device() != device) staging_.emplace(device);
  const Peer& own = exchange.peers[rank()];
  if (own.send != own.receive) {
    copy_bytes(own.send, own.receive, own.receive_bytes(), exchange.stream);
  }
  staging_->transfer(
      exchange, {comm_, kRowsTag, rank(), size(), max_count_},
      [&](const std::vector<int>& missing) { return deadline_error(exchange, missing); });
}

std::unique_ptr<Communicator> MpiCommunicator::split_group(const std::vector<int>& members) {
  MPI_Comm group;
  mpi_check(MPI_Comm_split(comm_, members.front(), rank(), &group));
  return own(group, max_count_);
}

std::unique_ptr<Communicator> make_mpi_communicator(std::chrono::milliseconds deadline,
                                                    std::int64_t max_count) {
  MPI_Comm comm;
  mpi_check(MPI_Comm_dup(MPI_COMM_WORLD, &comm));
  std::unique_ptr<Communicator> communicator = own(comm, max_count);
  communicator->set_deadline(deadline);
  return communicator;
}

}  // namespace serrate
