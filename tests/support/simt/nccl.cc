// The calls of nccl.h, but for those that make communicators (nccl_join.cc).
#include <cstring>

#include "tests/support/simt/nccl_process.h"
#include "tests/support/simt/nccl_reduce.h"

namespace simt::nccl {

State& state() {
  static State instance;
  return instance;
}

Group& group() {
  thread_local Group instance;
  return instance;
}

ncclResult_t refuse(ncclResult_t result, const std::string& text) {
  report_call(Kind::kBadCall, text);
  if (group().depth > 0) group().result = result;
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

namespace {

std::string check_call(const Call& call, const Communicator& c) {
  if (call.type < 0 || call.type >= ncclNumTypes) return "there is no such type";
  if (call.op < ncclSum || call.op > ncclAvg) return "there is no such reduction";
  if (call.root < 0 || call.root >= c.size) return "there is no rank " + std::to_string(call.root);
  if (!stream_exists(stream_id(call.stream))) return "the stream does not exist or was destroyed";
  if (device_of(stream_id(call.stream)) != c.device) return "the stream is of another device";
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
  if (group().depth > 0) {
    for (const LaunchPointer& launch : group().launches) {
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
    group().launches.push_back(launch);
    return ncclSuccess;
  }
  const auto launch = std::make_shared<Launch>();
  launch->communicator = c;
  launch->calls.push_back(std::move(call));
  return submit({launch});
}

}  // namespace
}  // namespace simt::nccl

using namespace simt;
using namespace simt::nccl;

extern "C" {

ncclResult_t ncclGetVersion(int* version) {
  *version = NCCL_VERSION_CODE;
  return ncclSuccess;
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
  leave_between_processes(*c);
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
  leave_between_processes(*c);
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
  if (!have_joined(c) || c->stuck || schedule()() % 2) return ncclSuccess;
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
  ++group().depth;
  return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
  const Lock lock;
  if (group().depth == 0) {
    return refuse(ncclInvalidUsage, "ncclGroupEnd: no group was begun");
  }
  if (--group().depth > 0) return ncclSuccess;
  const Group ended = std::exchange(group(), {});
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
