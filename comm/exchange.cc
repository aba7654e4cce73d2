#include "comm/exchange.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "serrate/error.h"

namespace serrate {

std::string_view to_string(Collective collective) {
  switch (collective) {
    case Collective::kBarrier:
      return "barrier";
    case Collective::kGather:
      return "gather";
    case Collective::kExchange:
      return "exchange";
    case Collective::kSum:
      return "sum";
    case Collective::kAllToAll:
      return "all_to_all";
    case Collective::kAllGather:
      return "all_gather";
    case Collective::kAllReduceSum:
      return "all_reduce_sum";
    case Collective::kReduceScatterSum:
      return "reduce_scatter_sum";
    case Collective::kBroadcast:
      return "broadcast";
  }
  return "unknown operation";
}

std::string_view to_string(ElementType type) {
  switch (type) {
    case ElementType::kBytes:
      return "bytes";
    case ElementType::kInt32:
      return "int32";
    case ElementType::kInt64:
      return "int64";
    case ElementType::kFloat:
      return "float";
    case ElementType::kDouble:
      return "double";
  }
  return "unknown type";
}

Communicator::Header::Header(Collective collective_, std::string_view operation_, ElementType type_,
                             std::int64_t row_bytes_, std::int64_t extent_)
    : collective(collective_), type(type_), row_bytes(row_bytes_), extent(extent_) {
  check(!operation_.empty() && operation_.size() < sizeof operation,
        fmt::format("operation \"{}\": a name has 1 to {} characters", operation_,
                    sizeof operation - 1));
  check(row_bytes_ >= 0, "the width of a row is not negative");
  std::copy(operation_.begin(), operation_.end(), operation);
}

bool Communicator::Header::same_call(const Header& other) const {
  return magic == other.magic && collective == other.collective && type == other.type &&
         device == other.device && sequence == other.sequence && row_bytes == other.row_bytes &&
         extent == other.extent && root == other.root &&
         std::memcmp(operation, other.operation, sizeof operation) == 0;
}

std::string Communicator::Header::name() const {
  if (magic != kMagic) return "something that is not an operation of serrate";
  const std::string_view given(operation, strnlen(operation, sizeof operation));
  return fmt::format("{} \"{}\" #{}", to_string(collective), given, sequence);
}

std::string Communicator::Header::description() const {
  if (magic != kMagic) return name();
  return fmt::format("{} ({}, rows of {} bytes, size {}, root {}, {})", name(), to_string(type),
                     row_bytes, extent, root, device == DeviceType::kCpu ? "CPU" : "GPU");
}

}  // namespace serrate
