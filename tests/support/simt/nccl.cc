// NCCL, stricter than NCCL. Ranks are threads of this process, on the one simulated device.
//
// Each call (or group of calls) on a communicator is a launch: an operation in each of its streams,
// which runs when the launches of all ranks that it needs have come to the front of theirs; then
// the data of all of them moves at once. Nothing is buffered: a send waits for its receive. What a
// host thread launches runs in the order of its calls, over all its communicators, as it may on a
// device that has no room for two: ranks that call in different orders wait for each other for
// ever, which is found.
#include <nccl.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "tests/support/simt/library.h"
#include "tests/support/simt/memory.h"
#include "tests/support/simt/nccl_fault.h"
#include "tests/support/simt/nccl_reduce.h"

namespace simt {
namespace {

struct Lock {
  std::lock_guard<std::recursive_mutex> guard{runtime_mutex()};
};

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
  bool blocking = true, finalized = false, aborted = false, in_progress = false, stuck = false;
  ncclResult_t error = ncclSuccess;
  std::thread::id user;                  // the thread that calls collectives
  std::deque<LaunchPointer> launches;    // that have not run
  std::vector<LaunchPointer> held_back;  // not queued before the host sees that it is over
  std::uint64_t submitted = 0, collectives = 0, splits = 0;
  std::map<std::pair<int, bool>, std::uint64_t> messages;  // peer, receives
  std::string last_call = "nothing";

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
  std::optional<NcclFault> fault;
  std::map<std::uint64_t, std::map<int, Pointer>> bootstraps;
  std::set<std::uint64_t> used_ids;
  std::map<std::thread::id, std::map<std::uint64_t, int>> open_units;  // of each thread: launches
};
State& state() {
  static State instance;
  return instance;
}

/// The group that a thread has open.
struct Group {
  int depth = 0;
  ncclResult_t result = ncclSuccess;
  std::vector<LaunchPointer> launches;
  std::vector<std::pair<Pointer, std::uint64_t>> joining;
};
thread_local Group group;

ncclResult_t refuse(ncclResult_t result, const std::string& text) {
  report_call(Kind::kBadCall, text);
  if (group.depth > 0) group.result = result;
  return result;
}

ncclComm_t handle_for(const Pointer& communicator, const char* what) {
  const std::uintptr_t handle = state().next_handle += 16;
  state().communicators[handle] = communicator;
  library_object_made(reinterpret_cast<void*>(handle), what);
  return reinterpret_cast<ncclComm_t>(handle);
}

Pointer find(const char* call, ncclComm_t comm) {
  const auto found = state().communicators.find(reinterpret_cast<std::uintptr_t>(comm));
  if (found != state().communicators.end()) return found->second;
  refuse(ncclInvalidArgument,
         std::string(call) + ": the communicator does not exist, was destroyed or aborted");
  return nullptr;
}

void forget(ncclComm_t comm) {
  state().communicators.erase(reinterpret_cast<std::uintptr_t>(comm));
  library_object_gone(comm);
}

std::string describe(const Call& call) {
  std::string text = call.name + " of " + std::to_string(call.count) + " elements of type " +
                     std::to_string(call.type);
  if (call.name == "ncclSend") text += " to rank " + std::to_string(call.root);
  if (call.name == "ncclRecv") text += " from rank " + std::to_string(call.root);
  return text;
}

// Running.

using Bytes = std::vector<std::uint8_t>;

// What a launch sends, call by call; read as its own operations.
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

LaunchPointer counterpart(const Launch& launch, const Call& call, int rank) {
  Clique& clique = *launch.communicator->clique;
  const int me = launch.communicator->rank;
  if (!call.point_to_point) {
    const auto found = clique.collectives.find({rank, call.number});
    return found == clique.collectives.end() ? nullptr : found->second;
  }
  const bool receives = call.name == "ncclRecv";
  const auto found = clique.messages.find(
      {receives ? call.root : me, receives ? me : call.root, call.number, !receives});
  return found == clique.messages.end() ? nullptr : found->second;
}

// Ranks whose launches a call needs.
std::vector<int> partners(const Launch& launch, const Call& call) {
  if (call.point_to_point) return {call.root};
  std::vector<int> all;
  for (int r = 0; r < launch.communicator->clique->size(); ++r) all.push_back(r);
  return all;
}

bool at_front(const Launch& launch) {
  if (launch.stuck || launch.failure != ncclSuccess) return false;
  const auto& open = state().open_units[launch.thread];
  if (!open.empty() && open.begin()->first < launch.unit) return false;
  if (launch.communicator->launches.empty() ||
      launch.communicator->launches.front().get() != &launch) {
    return false;
  }
  return std::all_of(launch.operations.begin(), launch.operations.end(), [](const auto& entry) {
    const Operation* const front = front_operation(entry.first);
    return front && front->id == entry.second;
  });
}

// All launches that have to run together with one; empty when one of them is not there yet.
std::vector<LaunchPointer> together(const LaunchPointer& launch) {
  std::vector<LaunchPointer> all{launch};
  for (std::size_t i = 0; i < all.size(); ++i) {
    const LaunchPointer now = all[i];
    if (!at_front(*now)) return {};
    for (const Call& call : now->calls) {
      for (const int rank : partners(*now, call)) {
        const LaunchPointer other = counterpart(*now, call, rank);
        if (!other || other->done) return {};
        if (!std::count(all.begin(), all.end(), other)) all.push_back(other);
      }
    }
  }
  return all;
}

void finish(const LaunchPointer& launch) {
  if (launch->done) return;
  launch->done = true;
  auto& waiting = launch->communicator->launches;
  waiting.erase(std::remove(waiting.begin(), waiting.end(), launch), waiting.end());
  auto& open = state().open_units[launch->thread];
  const auto unit = open.find(launch->unit);
  if (unit != open.end() && --unit->second == 0) open.erase(unit);
}

void forget_calls(const Launch& launch) {
  Clique& clique = *launch.communicator->clique;
  const int me = launch.communicator->rank;
  for (const Call& call : launch.calls) {
    const bool receives = call.name == "ncclRecv";
    if (call.point_to_point) {
      clique.messages.erase(
          {receives ? call.root : me, receives ? me : call.root, call.number, receives});
    } else {
      clique.collectives.erase({me, call.number});
    }
  }
}

void run_together(const std::vector<LaunchPointer>& all) {
  const DeviceAccess access;
  std::map<const Launch*, std::vector<Bytes>> sent;
  for (const LaunchPointer& launch : all) sent[launch.get()] = read_sends(*launch);
  for (const LaunchPointer& launch : all) {
    for (const Call& call : launch->calls) {
      if (call.name == "ncclSend") continue;
      std::vector<const Bytes*> parts;
      for (const int rank : partners(*launch, call)) {
        const LaunchPointer other = counterpart(*launch, call, rank);
        for (std::size_t i = 0; i < other->calls.size(); ++i) {
          const Call& theirs = other->calls[i];
          const bool matches = call.point_to_point
                                   ? theirs.name == "ncclSend" && theirs.number == call.number &&
                                         theirs.root == launch->communicator->rank
                                   : !theirs.point_to_point && theirs.number == call.number;
          if (matches) parts.push_back(&sent[other.get()][i]);
        }
      }
      if (call.point_to_point) {
        receive(call, *parts[0]);
      } else {
        run_collective(call, launch->communicator->rank, parts);
      }
    }
  }
  for (const LaunchPointer& launch : all) {
    finish(launch);
    forget_calls(*launch);
  }
}

void fail_all(const Clique& clique, ncclResult_t error) {
  for (const auto& member : clique.ranks) {
    if (const Pointer c = member.lock()) c->error = error;
  }
}

// Nothing has moved for long: whom does the launch wait for? False when it is not its turn.
bool give_up(const LaunchPointer& launch) {
  if (launch->done || !at_front(*launch)) return false;
  const Pointer& c = launch->communicator;
  std::string why = "it waits for a rank that does not come";
  for (const Call& call : launch->calls) {
    for (const int rank : partners(*launch, call)) {
      const LaunchPointer other = counterpart(*launch, call, rank);
      const Pointer peer = c->clique->ranks[static_cast<std::size_t>(rank)].lock();
      const std::string who = "rank " + std::to_string(rank);
      if (!peer || peer->aborted) {
        why = who + " has destroyed or aborted its communicator";
      } else if (!other) {
        why = who + " has not called it; its last call is " + peer->last_call;
      } else if (!other->done && !at_front(*other)) {
        why =
            who + " waits in another order, for " + describe(peer->launches.front()->calls.front());
      }
      if (!other) break;
    }
  }
  report_call(Kind::kDeadlock,
              c->name() + " waits in " + describe(launch->calls.front()) + ": " + why);
  fail_all(*c->clique, ncclRemoteError);
  finish(launch);
  return true;
}

// Both ends are known: do they agree?
void check_match(const Launch& launch, const Call& call) {
  for (const int rank : partners(launch, call)) {
    const LaunchPointer other = counterpart(launch, call, rank);
    if (!other || other.get() == &launch) continue;
    for (const Call& theirs : other->calls) {
      const bool matches = call.point_to_point
                               ? theirs.point_to_point && theirs.name != call.name &&
                                     theirs.number == call.number &&
                                     theirs.root == launch.communicator->rank
                               : !theirs.point_to_point && theirs.number == call.number;
      if (!matches) continue;
      const bool same = theirs.count == call.count && theirs.type == call.type &&
                        (call.point_to_point || (theirs.name == call.name && theirs.op == call.op &&
                                                 theirs.root == call.root));
      if (same) continue;
      report_call(Kind::kBadCall, launch.communicator->name() + " calls " + describe(call) +
                                      (call.root != theirs.root && !call.point_to_point
                                           ? " with root " + std::to_string(call.root)
                                           : "") +
                                      ", rank " + std::to_string(rank) + " " + describe(theirs));
      // What would come of it is anybody's guess: nothing of theirs runs any more.
      fail_all(*launch.communicator->clique, ncclInvalidUsage);
      return;
    }
  }
}

void queue_launch(const LaunchPointer& launch) {
  Communicator& c = *launch->communicator;
  c.launches.push_back(launch);
  ++state().open_units[launch->thread][launch->unit];
  for (Call& call : launch->calls) {
    if (call.point_to_point) {
      const bool receives = call.name == "ncclRecv";
      call.number = c.messages[{call.root, receives}]++;
      c.clique->messages[{receives ? call.root : c.rank, receives ? c.rank : call.root, call.number,
                          receives}] = launch;
    } else {
      call.number = c.collectives++;
      c.clique->collectives[{c.rank, call.number}] = launch;
    }
    c.last_call = describe(call);
  }
  for (const Call& call : launch->calls) {
    const StreamId stream = stream_id(call.stream);
    if (launch->operations.count(stream)) continue;
    launch->operations[stream] = enqueue_waiting(
        stream, launch->calls.size() > 1 ? "NCCL group" : call.name, [launch](const Operation&) {},
        [launch] {
          if (!launch->done && launch->failure != ncclSuccess) {
            launch->communicator->error = launch->failure;
            return false;
          }
          if (launch->done || launch->communicator->error != ncclSuccess) {
            finish(launch);
            return true;
          }
          const auto all = together(launch);
          if (!all.empty()) run_together(all);
          return launch->done;
        },
        [launch] { return give_up(launch); });
  }
  for (const Call& call : launch->calls) check_match(*launch, call);
}

// Waits for other ranks' calls on the host. False when they don't come.
template <typename Done>
bool wait_for_ranks(const Done& done) {
  auto moved_at = std::chrono::steady_clock::now();
  std::uint64_t seen = movements();
  while (!done()) {
    const auto now = std::chrono::steady_clock::now();
    if (seen != movements()) {
      seen = movements();
      moved_at = now;
    } else if (now - moved_at > patience()) {
      return false;
    }
    let_others_in();
  }
  return true;
}

void make_clique(const std::vector<Pointer>& ranks) {
  const auto clique = std::make_shared<Clique>();
  clique->number = state().next_clique++;
  for (std::size_t r = 0; r < ranks.size(); ++r) {
    clique->ranks.push_back(ranks[r]);
    ranks[r]->rank = static_cast<int>(r);
    ranks[r]->size = static_cast<int>(ranks.size());
    ranks[r]->clique = clique;
  }
}

ncclResult_t wait_to_join(const Pointer& c, const char* call, std::uint64_t id) {
  if (!c->blocking) return ncclInProgress;
  if (wait_for_ranks([&] { return c->clique != nullptr || c->aborted; })) return ncclSuccess;
  std::string missing;
  for (int r = 0; r < c->size; ++r) {
    if (!state().bootstraps[id].count(r))
      missing += (missing.empty() ? "" : ", ") + std::to_string(r);
  }
  report_call(Kind::kDeadlock, std::string(call) + ": rank " + std::to_string(c->rank) + " of " +
                                   std::to_string(c->size) +
                                   " waits for ranks that have not called it: " + missing);
  return ncclSystemError;
}

bool is_blocking(const ncclConfig_t* config, bool inherited) {
  if (!config || config->blocking == NCCL_CONFIG_UNDEF_INT) return inherited;
  return config->blocking != 0;
}

ncclResult_t join(const char* call, ncclComm_t* comm, int size, const ncclUniqueId& id, int rank,
                  const ncclConfig_t* config) {
  const Lock lock;
  std::uint64_t number = 0;
  std::memcpy(&number, id.internal, sizeof number);
  *comm = nullptr;
  if (size < 1 || rank < 0 || rank >= size) {
    return refuse(ncclInvalidArgument, std::string(call) + ": there is no rank " +
                                           std::to_string(rank) + " of " + std::to_string(size));
  }
  if (number == 0 || number >= state().next_id || state().used_ids.count(number)) {
    return refuse(ncclInvalidArgument,
                  std::string(call) + ": the id was not made by ncclGetUniqueId, or is used up");
  }
  auto& bootstrap = state().bootstraps[number];
  if (bootstrap.count(rank)) {
    return refuse(ncclInvalidUsage,
                  std::string(call) + ": there are two of rank " + std::to_string(rank));
  }
  if (!bootstrap.empty() && bootstrap.begin()->second->size != size) {
    return refuse(ncclInvalidArgument, std::string(call) + ": rank " + std::to_string(rank) +
                                           " has " + std::to_string(size) + " ranks, rank " +
                                           std::to_string(bootstrap.begin()->first) + " has " +
                                           std::to_string(bootstrap.begin()->second->size));
  }
  const auto c = std::make_shared<Communicator>();
  c->rank = rank;
  c->size = size;
  c->blocking = is_blocking(config, true);
  c->in_progress = !c->blocking;
  bootstrap[rank] = c;
  *comm = handle_for(c, "NCCL communicator");
  if (static_cast<int>(bootstrap.size()) == size) {
    std::vector<Pointer> ranks;
    for (const auto& [r, member] : bootstrap) ranks.push_back(member);
    make_clique(ranks);
    state().used_ids.insert(number);
    state().bootstraps.erase(number);
  }
  if (group.depth > 0) {
    group.joining.emplace_back(c, number);
    return ncclSuccess;
  }
  return wait_to_join(c, call, number);
}

// A communicator that may be used now, by this thread.
Pointer usable(const char* call, ncclComm_t comm, ncclResult_t* result) {
  const Pointer c = find(call, comm);
  if (!c) {
    *result = ncclInvalidArgument;
    return nullptr;
  }
  const auto no = [&](const std::string& text) -> Pointer {
    *result = refuse(ncclInvalidUsage, std::string(call) + ": " + text);
    return nullptr;
  };
  if (c->in_progress) {
    return no("the call before is in progress: ncclCommGetAsyncError has not said ncclSuccess");
  }
  if (!c->clique) return no("the communicator waits for ncclGroupEnd");
  if (c->finalized) return no("the communicator is finalized");
  if (c->user == std::thread::id()) c->user = std::this_thread::get_id();
  if (c->user != std::this_thread::get_id()) {
    return no(c->name() + " is used by two threads: nothing says in which order");
  }
  if (c->error != ncclSuccess) {
    *result = c->error;
    return nullptr;
  }
  return c;
}

// What a test planted for this launch happens now. Whether NCCL refuses it.
bool meets_fault(Launch& launch) {
  Communicator& c = *launch.communicator;
  const std::optional<NcclFault>& fault = state().fault;
  if (!fault || fault->rank != c.rank || fault->launch != c.submitted++) return false;
  switch (fault->effect) {
    case NcclFault::Effect::kRefused:
      c.error = fault->error;
      return true;
    case NcclFault::Effect::kFails:
      launch.failure = fault->error;
      return false;
    case NcclFault::Effect::kNeverQueued:
      c.stuck = true;
      return false;
    case NcclFault::Effect::kNeverRuns:
      launch.stuck = true;
      return false;
  }
  return false;
}

ncclResult_t submit(const std::vector<LaunchPointer>& launches) {
  ncclResult_t result = ncclSuccess;
  const std::uint64_t unit = state().next_unit++;
  for (const LaunchPointer& launch : launches) {
    Communicator& c = *launch->communicator;
    launch->unit = unit;
    launch->thread = std::this_thread::get_id();
    if (meets_fault(*launch)) return c.error;
    if (c.blocking) {
      queue_launch(launch);
    } else {
      c.in_progress = true;
      c.held_back.push_back(launch);
      result = ncclInProgress;
    }
  }
  return result;
}

std::string check_call(const Call& call, const Communicator& c) {
  if (call.type < 0 || call.type >= ncclNumTypes) return "there is no such type";
  if (call.op < ncclSum || call.op > ncclAvg) return "there is no such reduction";
  if (call.root < 0 || call.root >= c.size) return "there is no rank " + std::to_string(call.root);
  if (!stream_exists(stream_id(call.stream))) return "the stream does not exist or was destroyed";
  const bool reduces = call.name.find("Reduce") != std::string::npos;
  if (reduces && (call.type == ncclFloat8e4m3 || call.type == ncclFloat8e5m2)) {
    return "reductions of 8 bit floats are not simulated";
  }
  for (const auto& [data, bytes, what] :
       {std::tuple<const void*, std::size_t, const char*>{call.send, call.send_bytes, "send"},
        {call.recv, call.recv_bytes, "receive"}}) {
    if (bytes > 0 && !is_device_memory(data)) {
      return std::string("the ") + what + " buffer is not in device memory";
    }
  }
  if (call.send_bytes > 0 && call.recv_bytes > 0 &&
      overlap(call.send, call.send_bytes, call.recv, call.recv_bytes)) {
    const auto send = reinterpret_cast<std::uintptr_t>(call.send);
    const auto recv = reinterpret_cast<std::uintptr_t>(call.recv);
    const std::size_t mine = static_cast<std::size_t>(c.rank) * call.count * size_of(call.type);
    const bool in_place = call.name == "ncclReduceScatter" ? recv == send + mine
                          : call.name == "ncclAllGather"   ? send == recv + mine
                          : call.name == "ncclAlltoAll"    ? false
                                                           : send == recv;
    if (!in_place) return "the buffers overlap, and not as the call allows in place";
  }
  return {};
}

ncclResult_t call_on(ncclComm_t comm, Call call) {
  const Lock lock;
  ncclResult_t result = ncclSuccess;
  const Pointer c = usable(call.name.c_str(), comm, &result);
  if (!c) return result;
  const std::size_t block = call.count * size_of(call.type);
  const auto all = static_cast<std::size_t>(c->size) * block;
  const bool root = c->rank == call.root;
  if (call.name == "ncclSend") {
    call.send_bytes = block;
  } else if (call.name == "ncclRecv") {
    call.recv_bytes = block;
  } else {
    call.send_bytes = call.name == "ncclReduceScatter" || call.name == "ncclAlltoAll" ? all
                      : call.name == "ncclBroadcast" && !root                         ? 0
                                                                                      : block;
    call.recv_bytes = call.name == "ncclAllGather" || call.name == "ncclAlltoAll" ? all
                      : call.name == "ncclReduce" && !root                        ? 0
                                                                                  : block;
  }
  if (std::string problem = check_call(call, *c); !problem.empty()) {
    return refuse(ncclInvalidArgument, call.name + ": " + problem);
  }
  if (group.depth > 0) {
    for (const LaunchPointer& launch : group.launches) {
      if (launch->communicator != c) continue;
      for (const Call& other : launch->calls) {
        if (overlap(call.recv, call.recv_bytes, other.recv, other.recv_bytes) ||
            overlap(call.recv, call.recv_bytes, other.send, other.send_bytes) ||
            overlap(call.send, call.send_bytes, other.recv, other.recv_bytes)) {
          return refuse(ncclInvalidUsage, call.name + ": its buffer overlaps that of " +
                                              other.name + " in the same group");
        }
      }
      launch->calls.push_back(std::move(call));
      return ncclSuccess;
    }
    const auto launch = std::make_shared<Launch>();
    launch->communicator = c;
    launch->calls.push_back(std::move(call));
    group.launches.push_back(launch);
    return ncclSuccess;
  }
  const auto launch = std::make_shared<Launch>();
  launch->communicator = c;
  launch->calls.push_back(std::move(call));
  return submit({launch});
}

// The ranks of each colour, by key.
void split_when_all_are_there(Clique& clique, std::uint64_t number) {
  auto& wishes = clique.splits[number];
  if (static_cast<int>(wishes.size()) < clique.size()) return;
  std::map<int, std::vector<std::pair<std::pair<int, int>, Pointer>>> colors;
  for (const auto& [rank, wish] : wishes) {
    if (wish->made) colors[wish->color].push_back({{wish->key, rank}, wish->made});
  }
  for (auto& [color, members] : colors) {
    std::sort(members.begin(), members.end(),
              [](const auto& a, const auto& b) { return a.first < b.first; });
    std::vector<Pointer> ranks;
    for (const auto& [key, member] : members) ranks.push_back(member);
    make_clique(ranks);
  }
}

}  // namespace

void plant_nccl_fault(const std::optional<NcclFault>& fault) {
  const Lock lock;
  state().fault = fault;
}

}  // namespace simt

using namespace simt;

extern "C" {

ncclResult_t ncclGetVersion(int* version) {
  *version = NCCL_VERSION_CODE;
  return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  const Lock lock;
  std::memset(id, 0, sizeof *id);
  const std::uint64_t number = state().next_id++;
  std::memcpy(id->internal, &number, sizeof number);
  return ncclSuccess;
}

ncclResult_t ncclCommInitRank(ncclComm_t* comm, int size, ncclUniqueId id, int rank) {
  return join("ncclCommInitRank", comm, size, id, rank, nullptr);
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int size, ncclUniqueId id, int rank,
                                    ncclConfig_t* config) {
  return join("ncclCommInitRankConfig", comm, size, id, rank, config);
}

ncclResult_t ncclCommSplit(ncclComm_t comm, int color, int key, ncclComm_t* made,
                           ncclConfig_t* config) {
  const Lock lock;
  ncclResult_t result = ncclSuccess;
  *made = nullptr;
  const Pointer c = usable("ncclCommSplit", comm, &result);
  if (!c) return result;
  if (color < 0 && color != NCCL_SPLIT_NOCOLOR) {
    return refuse(ncclInvalidArgument, "ncclCommSplit: there is no such colour");
  }
  const auto wish = std::make_shared<Joining>();
  wish->color = color;
  wish->key = key;
  if (color != NCCL_SPLIT_NOCOLOR) {
    wish->made = std::make_shared<Communicator>();
    wish->made->blocking = is_blocking(config, c->blocking);
    wish->made->in_progress = !wish->made->blocking;
    *made = handle_for(wish->made, "NCCL communicator");
  }
  const std::uint64_t number = c->splits++;
  c->last_call = "ncclCommSplit";
  c->clique->splits[number][c->rank] = wish;
  split_when_all_are_there(*c->clique, number);
  const auto all_there = [&] {
    return static_cast<int>(c->clique->splits[number].size()) == c->clique->size();
  };
  if (!c->blocking) return all_there() ? ncclSuccess : ncclInProgress;
  if (wait_for_ranks(all_there)) return ncclSuccess;
  std::string missing;
  for (int r = 0; r < c->size; ++r) {
    if (!c->clique->splits[number].count(r)) missing += " " + std::to_string(r);
  }
  report_call(Kind::kDeadlock,
              c->name() + " waits in ncclCommSplit for ranks that have not called it:" + missing);
  return ncclSystemError;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
  const Lock lock;
  ncclResult_t result = ncclSuccess;
  const Pointer c = usable("ncclCommFinalize", comm, &result);
  if (!c) return result;
  c->finalized = true;
  if (!c->blocking) {
    c->in_progress = true;
    return ncclInProgress;
  }
  run_until([&] { return c->launches.empty(); });
  return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  const Lock lock;
  const Pointer c = find("ncclCommDestroy", comm);
  if (!c) return ncclInvalidArgument;
  if (!c->held_back.empty()) {
    refuse(ncclInvalidUsage, "ncclCommDestroy: " + c->name() + " has calls in progress");
  }
  run_until([&] { return c->launches.empty(); });
  forget(comm);
  return ncclSuccess;
}

// From any thread, at any time. What has not run does not run any more.
ncclResult_t ncclCommAbort(ncclComm_t comm) {
  const Lock lock;
  const Pointer c = find("ncclCommAbort", comm);
  if (!c) return ncclInvalidArgument;
  c->aborted = true;
  c->held_back.clear();
  while (!c->launches.empty()) finish(c->launches.front());
  forget(comm);
  return ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* error) {
  const Lock lock;
  const Pointer c = find("ncclCommGetAsyncError", comm);
  if (!c) return ncclInvalidArgument;
  *error = c->error;
  if (c->error != ncclSuccess || !c->in_progress) return ncclSuccess;
  *error = ncclInProgress;
  // It takes as long as it takes; nothing is in a stream before the host has seen that it is over.
  if (!c->clique || c->stuck || schedule()() % 2) return ncclSuccess;
  for (const LaunchPointer& launch : std::exchange(c->held_back, {})) queue_launch(launch);
  if (c->finalized && !c->launches.empty()) {
    make_progress();
    return ncclSuccess;
  }
  c->in_progress = false;
  *error = c->error;
  return ncclSuccess;
}

ncclResult_t ncclCommCount(const ncclComm_t comm, int* count) {
  const Lock lock;
  const Pointer c = find("ncclCommCount", comm);
  if (c) *count = c->size;
  return c ? ncclSuccess : ncclInvalidArgument;
}

ncclResult_t ncclCommCuDevice(const ncclComm_t comm, int* device) {
  const Lock lock;
  const Pointer c = find("ncclCommCuDevice", comm);
  if (c) *device = 0;
  return c ? ncclSuccess : ncclInvalidArgument;
}

ncclResult_t ncclCommUserRank(const ncclComm_t comm, int* rank) {
  const Lock lock;
  const Pointer c = find("ncclCommUserRank", comm);
  if (c) *rank = c->rank;
  return c ? ncclSuccess : ncclInvalidArgument;
}

const char* ncclGetErrorString(ncclResult_t result) {
  switch (result) {
    case ncclSuccess:
      return "no error";
    case ncclUnhandledCudaError:
      return "unhandled CUDA error";
    case ncclSystemError:
      return "system error";
    case ncclInternalError:
      return "internal error";
    case ncclInvalidArgument:
      return "invalid argument";
    case ncclInvalidUsage:
      return "invalid usage";
    case ncclRemoteError:
      return "remote error";
    case ncclInProgress:
      return "in progress";
    default:
      return "?";
  }
}

const char* ncclGetLastError(ncclComm_t) {
  return "";
}

ncclResult_t ncclGroupStart() {
  ++group.depth;
  return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
  const Lock lock;
  if (group.depth == 0) {
    return refuse(ncclInvalidUsage, "ncclGroupEnd: no group was begun");
  }
  if (--group.depth > 0) return ncclSuccess;
  const Group ended = std::exchange(group, {});
  if (ended.result != ncclSuccess) return ended.result;
  ncclResult_t result = ncclSuccess;
  for (const auto& [c, id] : ended.joining) {
    const ncclResult_t joined = wait_to_join(c, "ncclCommInitRank", id);
    if (joined != ncclSuccess) result = joined;
  }
  const ncclResult_t submitted = submit(ended.launches);
  return submitted != ncclSuccess ? submitted : result;
}

#define SIMT_CALL(...)  \
  Call call;            \
  call.name = __func__; \
  call.count = count;   \
  call.type = type;     \
  call.stream = stream; \
  __VA_ARGS__;          \
  return call_on(comm, std::move(call))

ncclResult_t ncclAllReduce(const void* send, void* recv, std::size_t count, ncclDataType_t type,
                           ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream) {
  SIMT_CALL(call.send = send, call.recv = recv, call.op = op);
}

ncclResult_t ncclReduce(const void* send, void* recv, std::size_t count, ncclDataType_t type,
                        ncclRedOp_t op, int root, ncclComm_t comm, cudaStream_t stream) {
  SIMT_CALL(call.send = send, call.recv = recv, call.op = op, call.root = root);
}

ncclResult_t ncclReduceScatter(const void* send, void* recv, std::size_t count, ncclDataType_t type,
                               ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream) {
  SIMT_CALL(call.send = send, call.recv = recv, call.op = op);
}

ncclResult_t ncclAllGather(const void* send, void* recv, std::size_t count, ncclDataType_t type,
                           ncclComm_t comm, cudaStream_t stream) {
  SIMT_CALL(call.send = send, call.recv = recv);
}

ncclResult_t ncclBroadcast(const void* send, void* recv, std::size_t count, ncclDataType_t type,
                           int root, ncclComm_t comm, cudaStream_t stream) {
  SIMT_CALL(call.send = send, call.recv = recv, call.root = root);
}

ncclResult_t ncclAlltoAll(const void* send, void* recv, std::size_t count, ncclDataType_t type,
                          ncclComm_t comm, cudaStream_t stream) {
  SIMT_CALL(call.send = send, call.recv = recv);
}

ncclResult_t ncclSend(const void* send, std::size_t count, ncclDataType_t type, int peer,
                      ncclComm_t comm, cudaStream_t stream) {
  SIMT_CALL(call.send = send, call.root = peer, call.point_to_point = true);
}

ncclResult_t ncclRecv(void* recv, std::size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  SIMT_CALL(call.recv = recv, call.root = peer, call.point_to_point = true);
}

}  // extern "C"
