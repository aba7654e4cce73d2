// What a call of NCCL does to the data.
#include <cstring>

#include "tests/support/simt/nccl_reduce.h"
#include "tests/support/simt/nccl_state.h"

namespace simt::nccl {
namespace {

void receive(const Call& call, const Bytes& bytes) {
  const Operation& operation = *front_operation(stream_id(call.stream));
  if (!library_writes(call.recv, bytes.size(), "the receive buffer of " + call.name, operation))
    return;
  std::memcpy(call.recv, bytes.data(), bytes.size());
}

// `parts`: what each rank sent.
void run_collective(const Call& call, int rank, const std::vector<const Bytes*>& parts) {
  const int n = static_cast<int>(parts.size());
  const std::size_t block = call.count * size_of(call.type);
  Bytes result(call.recv_bytes);
  const auto reduce_from = [&](std::size_t offset) {
    std::vector<const std::uint8_t*> from;
    for (const Bytes* part : parts) from.push_back(part->data() + offset);
    reduce(from, result.data(), call.count, call.type, call.op);
  };
  if (call.name == "ncclAllReduce" || call.name == "ncclReduce") {
    if (call.recv_bytes == 0) return;
    reduce_from(0);
  } else if (call.name == "ncclReduceScatter") {
    reduce_from(static_cast<std::size_t>(rank) * block);
  } else if (call.name == "ncclBroadcast") {
    result = *parts[static_cast<std::size_t>(call.root)];
  } else {
    const std::size_t from =
        call.name == "ncclAlltoAll" ? static_cast<std::size_t>(rank) * block : 0;
    for (int r = 0; r < n && block > 0; ++r) {
      std::memcpy(result.data() + static_cast<std::size_t>(r) * block,
                  parts[static_cast<std::size_t>(r)]->data() + from, block);
    }
  }
  receive(call, result);
}

}  // namespace

std::vector<Bytes> read_sends(const Launch& launch) {
  std::vector<Bytes> sent;
  for (const Call& call : launch.calls) {
    const Operation& operation = *front_operation(stream_id(call.stream));
    Bytes bytes(call.send_bytes);
    if (library_reads(call.send, call.send_bytes, "the send buffer of " + call.name, operation)) {
      std::memcpy(bytes.data(), call.send, call.send_bytes);
    }
    sent.push_back(std::move(bytes));
  }
  return sent;
}

void deliver(const Call& call, int rank, const std::vector<const Bytes*>& parts) {
  if (call.point_to_point) {
    receive(call, *parts[0]);
  } else {
    run_collective(call, rank, parts);
  }
}

}  // namespace simt::nccl
