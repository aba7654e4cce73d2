#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "serrate/communicator.h"

namespace serrate {

enum class Collective : std::uint8_t {
  // on the host
  kBarrier,
  kGather,
  kExchange,
  kSum,
  // of payload
  kAllToAll,
  kAllGather,
  kAllReduceSum,
  kReduceScatterSum,
  kBroadcast,
};
std::string_view to_string(Collective collective);

/// What values are; two calls that differ only in this would exchange garbage.
enum class ElementType : std::uint8_t { kBytes, kInt32, kInt64, kFloat, kDouble };
std::string_view to_string(ElementType type);

/// Up to this many bytes for a peer are moved in as few messages as possible: they fit into one
/// short ("eager") message of Open MPI together with the header.
inline constexpr std::int64_t kSmallBytes = 3840;

/// What every message of an exchange starts with. All but `rows` has to be equal on all ranks.
struct Communicator::Header {
  static constexpr std::uint32_t kMagic = 0x53455231;  // "SER1"

  std::uint32_t magic = kMagic;
  Collective collective = Collective::kBarrier;
  ElementType type = ElementType::kBytes;
  DeviceType device = DeviceType::kCpu;  // of the rows
  std::int64_t sequence = 0;             // number of the exchange on this communicator, from 1
  std::int64_t row_bytes = 0;
  std::int64_t extent = 0;  // values to sum or broadcast, or a hash of counts that all ranks give
  std::int32_t root = 0;    // of a broadcast
  std::int64_t rows = 0;    // from the sender to the receiver of this header
  char operation[24] = {};  // the caller's name for it, ends with 0

  Header() = default;
  Header(Collective collective_, std::string_view operation_, ElementType type_,
         std::int64_t row_bytes_, std::int64_t extent_ = 0);

  bool same_call(const Header& other) const;
  /// all_to_all "input_dist" #12
  std::string name() const;
  /// The name and all else that has to agree.
  std::string description() const;
};

struct Communicator::Peer {
  static constexpr std::int64_t kAnyRows = -1;

  Header to;    // what this rank tells the peer
  Header from;  // what the peer tells this rank
  std::int64_t expected_rows = kAnyRows;
  const std::byte* send = nullptr;  // [to.rows, row_bytes]
  std::byte* receive = nullptr;     // [from.rows, row_bytes]

  std::int64_t send_bytes() const { return to.rows * to.row_bytes; }
  std::int64_t receive_bytes() const { return from.rows * from.row_bytes; }
};

struct Communicator::Exchange {
  std::vector<Peer>& peers;
  const Stream& stream;
  std::chrono::steady_clock::time_point deadline;

  const Header& call() const { return peers.front().to; }

  // For an implementation that leaves a part of its work to another one.
  void exchange_headers_by(Communicator& other) { other.exchange_headers(*this); }
  void exchange_rows_by(Communicator& other) { other.exchange_rows(*this); }
  void check_header_by(const Communicator& other, int peer) const {
    other.check_header(*this, peer);
  }
};

}  // namespace serrate
