// How launches of NCCL's calls wait for each other and run.
#include <functional>

#include "tests/support/simt/memory.h"
#include "tests/support/simt/nccl_process.h"
#include "tests/support/simt/nccl_state.h"

namespace simt {
namespace nccl {
namespace {

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

}  // namespace

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

namespace {

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

}  // namespace

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

namespace {

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
      deliver(call, launch->communicator->rank, parts);
    }
  }
  for (const LaunchPointer& launch : all) {
    finish(launch);
    forget_calls(*launch);
  }
}

// Goes as far as other ranks allow.
void advance(const LaunchPointer& launch) {
  if (!launch->communicator->clique->folder.empty()) return advance_between_processes(launch);
  const std::vector<LaunchPointer> all = together(launch);
  if (!all.empty()) run_together(all);
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
      if (!other && !c->clique->folder.empty()) {
        why = who + " is another process, whose call has not come";
      } else if (!peer || peer->aborted) {
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

}  // namespace

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
          advance(launch);
          return launch->done;
        },
        [launch] { return give_up(launch); });
  }
  for (const Call& call : launch->calls) check_match(*launch, call);
}

namespace {

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

}  // namespace

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

}  // namespace nccl

void plant_nccl_fault(const std::optional<NcclFault>& fault) {
  const Lock lock;
  nccl::state().fault = fault;
}

}  // namespace simt
