#pragma once

#include <nccl.h>

#include <algorithm>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "tests/support/simt/device.h"
#include "tests/support/simt/library.h"
#include "tests/support/simt/nccl_fault.h"

// NCCL, stricter than NCCL. Ranks are threads of this process, on the one simulated device, or
// processes (nccl_process.h).
//
// Each call (or group of calls) on a communicator is a launch: an operation in each of its streams,
// which runs when the launches of all ranks that it needs have come to the front of theirs; then
// the data of all of them moves at once. Nothing is buffered: a send waits for its receive. What a
// host thread launches runs in the order of its calls, over all its communicators, as it may on a
// device that has no room for two: ranks that call in different orders wait for each other for
// ever, which is found.

namespace simt::nccl {

using Bytes = std::vector<std::uint8_t>;

struct Call {
  std::string name;
  const void* send = nullptr;
  void* recv = nullptr;
  std::size_t count = 0, send_bytes = 0, recv_bytes = 0;
  ncclDataType_t type = ncclInt8;
  ncclRedOp_t op = ncclSum;
  int root = 0;  // or the peer of a send or receive
  bool point_to_point = false;
  cudaStream_t stream = nullptr;
  std::uint64_t number = 0;  // of the rank's collectives; or of those with the peer
};

struct Communicator;

struct Launch {
  std::shared_ptr<Communicator> communicator;
  std::vector<Call> calls;
  std::map<StreamId, std::uint32_t> operations;
  std::thread::id thread;
  std::uint64_t unit = 0;  // calls of one group have the same
  bool done = false, stuck = false;
  ncclResult_t failure = ncclSuccess;
  std::vector<Bytes> sent;  // between processes: of each call, what other ranks were given
};
using LaunchPointer = std::shared_ptr<Launch>;

/// The communicators of all ranks that belong together.
struct Clique {
  std::uint64_t number = 0;
  std::vector<std::weak_ptr<Communicator>> ranks;
  std::map<std::pair<int, std::uint64_t>, LaunchPointer> collectives;  // rank, number
  std::map<std::tuple<int, int, std::uint64_t, bool>, LaunchPointer>
      messages;  // from, to, number, receives
  std::map<std::uint64_t, std::map<int, std::shared_ptr<struct Joining>>> splits;
  std::string folder;  // through which ranks that are processes talk; else empty

  int size() const { return static_cast<int>(ranks.size()); }
};

/// A rank's wish to be part of a new communicator.
struct Joining {
  int color = 0, key = 0;
  std::shared_ptr<Communicator> made;
};

struct Communicator {
  std::shared_ptr<Clique> clique;  // null until all ranks are there
  int rank = 0, size = 0;
  int device = current_device();
  bool blocking = true, finalized = false, aborted = false, in_progress = false, stuck = false;
  ncclResult_t error = ncclSuccess;
  std::thread::id user;                  // the thread that calls collectives
  std::deque<LaunchPointer> launches;    // that have not run
  std::vector<LaunchPointer> held_back;  // not queued before the host sees that it is over
  std::uint64_t submitted = 0, collectives = 0, splits = 0;
  std::map<std::pair<int, bool>, std::uint64_t> messages;  // peer, receives
  std::string last_call = "nothing";
  std::string folder;  // as the clique's

  std::string name() const {
    return "rank " + std::to_string(rank) + " of " + std::to_string(size) + " (communicator " +
           std::to_string(clique ? clique->number : 0) + ")";
  }
};
using Pointer = std::shared_ptr<Communicator>;

struct State {
  std::map<std::uintptr_t, Pointer> communicators;
  std::uintptr_t next_handle = 0x2000;
  std::uint64_t next_id = 1, next_clique = 1, next_unit = 1;
  const std::uint64_t process = std::random_device()();  // tells ids of processes apart
  std::optional<NcclFault> fault;
  std::map<std::uint64_t, std::map<int, Pointer>> bootstraps;
  std::set<std::pair<std::uint64_t, std::uint64_t>> used_ids;          // process, number
  std::map<std::thread::id, std::map<std::uint64_t, int>> open_units;  // of each thread: launches
};
State& state();

/// The group that a thread has open.
struct Group {
  int depth = 0;
  ncclResult_t result = ncclSuccess;
  std::vector<LaunchPointer> launches;
  std::vector<std::pair<Pointer, std::uint64_t>> joining;
};
Group& group();

/// A finding, and the result of the call; within a group, of the group.
ncclResult_t refuse(ncclResult_t result, const std::string& text);
std::string describe(const Call& call);

/// The communicator of a handle, or null and a finding.
Pointer find(const char* call, ncclComm_t comm);
ncclComm_t handle_for(const Pointer& communicator, const char* what);
void forget(ncclComm_t comm);
/// A communicator that may be used now, by this thread; or null, with the result of the call.
Pointer usable(const char* call, ncclComm_t comm, ncclResult_t* result);

// nccl_launch.cc
/// Queues launches of one group, or holds them back where calls do not block.
ncclResult_t submit(const std::vector<LaunchPointer>& launches);
void queue_launch(const LaunchPointer& launch);
/// Whether it is its turn: in its thread, on its communicator and in its streams.
bool at_front(const Launch& launch);
/// Ranks whose launches a call needs.
std::vector<int> partners(const Launch& launch, const Call& call);
/// It does not wait, and is not waited for, any more.
void finish(const LaunchPointer& launch);
/// Nobody asks for its calls any more.
void forget_calls(const Launch& launch);

// nccl_run.cc
/// What a launch sends, call by call; read as its own operations.
std::vector<Bytes> read_sends(const Launch& launch);
/// Writes what a call receives; `parts`: what each of its partners sent.
void deliver(const Call& call, int rank, const std::vector<const Bytes*>& parts);

// nccl_join.cc
/// Waits, where calls block, until all ranks have joined.
ncclResult_t wait_to_join(const Pointer& c, const char* call, std::uint64_t id);

}  // namespace simt::nccl
