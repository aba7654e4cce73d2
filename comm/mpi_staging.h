#pragma once

#include <mpi.h>

#include <array>
#include <cstdint>
#include <functional>
#include <vector>

#include "comm/exchange.h"
#include "serrate/event.h"
#include "serrate/host_buffer.h"

namespace serrate {

/// Rows of a device on their way through MPI, which reads and writes host memory only (as Debian
/// builds Open MPI): in chunks, through a few slots of pinned memory for each direction, so that
/// copies and messages overlap and the memory does not grow with the rows.
class MpiStaging {
 public:
  static constexpr std::int64_t kChunkBytes = 1 << 20;
  static constexpr std::int64_t kSlots = 4;

  struct Route {
    MPI_Comm comm;
    int tag;
    int rank, size;
    std::int64_t max_count;  // bytes of a message
  };
  /// The error for peers whose messages did not come or go within the deadline.
  using DeadlineError = std::function<Error(const std::vector<int>& missing)>;

  explicit MpiStaging(Device device);
  Device device() const { return device_; }

  /// Sends and receives all rows of an exchange but this rank's own. What was received is copied to
  /// the device in the order of the stream, which is not waited for.
  void transfer(const Communicator::Exchange& exchange, const Route& route,
                const DeadlineError& deadline_error);
  /// After a failure: a message that comes late may not write into memory that is in other use.
  void cancel_receives() noexcept;

 private:
  struct Chunk {
    int peer;
    std::int64_t offset, bytes;
  };
  /// Chunk i goes through slot i % kSlots.
  struct Slots {
    HostBuffer<std::byte> memory;
    std::vector<Event> copied;  // between memory and the device
    std::array<MPI_Request, kSlots> messages;
  };

  Slots make_slots() const;
  void begin(const Communicator::Exchange& exchange, const Route& route);
  bool advance_sends(const Communicator::Exchange& exchange, const Route& route);
  bool advance_receives(const Communicator::Exchange& exchange, const Route& route);
  std::vector<int> waited_for() const;

  Device device_;
  Slots out_, in_;
  // The transfer in progress. The chunks of all ranks are in an order in which the first one
  // that is not done can always go on: by the distance between sender and receiver, then by offset.
  std::vector<Chunk> sends_, receives_;
  std::int64_t copied_ = 0, sent_ = 0, gone_ = 0;  // sends that have got that far
  std::int64_t posted_ = 0, arrived_ = 0;          // receives
};

}  // namespace serrate
