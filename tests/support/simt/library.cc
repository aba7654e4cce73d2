#include "tests/support/simt/library.h"

#include <cstdlib>
#include <cstring>
#include <map>

#include "tests/support/simt/memory.h"
#include "tests/support/simt/observe.h"

namespace simt {
namespace {

std::uintptr_t address_of(const void* data) {
  return reinterpret_cast<std::uintptr_t>(data);
}

std::map<const void*, std::string>& objects() {
  static std::map<const void*, std::string> instance;
  return instance;
}

// What is wrong with the memory itself; empty when nothing is.
std::string problem_of(std::uintptr_t address, std::size_t bytes, bool read, Kind* kind) {
  Memory& memory = Memory::instance();
  if (!memory.is_device(address) && !memory.is_pinned(address)) {
    *kind = address < 4096 ? Kind::kOutOfBounds : Kind::kHostMemory;
    return address < 4096 ? "a null pointer" : "memory of the host";
  }
  const std::uint8_t* state = memory.state(address);
  for (std::size_t i = 0; i < bytes; ++i) {
    if (!(state[i] & kAllocated)) {
      const Allocation* a = memory.find(address + i);
      const bool freed = a && a->freed_by && address + i < a->end();
      *kind = freed ? Kind::kUseAfterFree : Kind::kOutOfBounds;
      return memory.describe(address + i) +
             (freed ? ", by " + operation_name(a->freed_by) : ", which it does not have");
    }
    if (read && !(state[i] & kWritten)) {
      *kind = Kind::kNotWritten;
      return memory.describe(address + i) + ", which nothing wrote";
    }
  }
  return {};
}

bool touch(const void* data, std::size_t bytes, const std::string& what, const Operation& operation,
           bool writes) {
  if (bytes == 0) return true;
  Kind kind = Kind::kBadCall;
  const std::string problem = problem_of(address_of(data), bytes, !writes, &kind);
  if (!problem.empty()) {
    report_call(kind, operation_name(operation.id) + (writes ? " writes " : " reads ") + what +
                          ": " + problem);
    if (kind != Kind::kNotWritten) {
      set_sticky_error(cudaErrorLaunchFailure);
      return false;
    }
  }
  if (!observe_operation(address_of(data), bytes, writes ? Touch::kWrite : Touch::kRead,
                         operation)) {
    return false;
  }
  if (writes) {
    std::uint8_t* state = Memory::instance().state(address_of(data));
    for (std::size_t i = 0; i < bytes; ++i) state[i] |= kWritten;
  }
  return true;
}

}  // namespace

void report_call(Kind kind, std::string text) {
  Finding finding;
  finding.kind = kind;
  finding.text = std::move(text);
  report(std::move(finding));
}

StreamId stream_id(cudaStream_t stream) {
  const auto id = reinterpret_cast<std::uintptr_t>(stream);
  return id == 0 ? kDefaultStream : static_cast<StreamId>(id);
}

bool library_reads(const void* data, std::size_t bytes, const std::string& what,
                   const Operation& operation) {
  return touch(data, bytes, what, operation, false);
}

bool library_writes(void* data, std::size_t bytes, const std::string& what,
                    const Operation& operation) {
  return touch(data, bytes, what, operation, true);
}

bool is_device_memory(const void* data) {
  return Memory::instance().is_device(address_of(data));
}

bool is_pinned_memory(const void* data) {
  return Memory::instance().is_pinned(address_of(data));
}

bool overlap(const void* a, std::size_t a_bytes, const void* b, std::size_t b_bytes) {
  return address_of(a) < address_of(b) + b_bytes && address_of(b) < address_of(a) + a_bytes;
}

void library_object_made(const void* object, std::string what) {
  objects()[object] = std::move(what);
}

void library_object_gone(const void* object) {
  objects().erase(object);
}

std::vector<std::string> live_library_objects() {
  const std::lock_guard lock(runtime_mutex());
  std::vector<std::string> live;
  for (const auto& [object, what] : objects()) live.push_back(what);
  return live;
}

std::uint64_t schedule_seed() {
  const char* text = std::getenv("SERRATE_SIMT_SEED");
  return text ? std::strtoull(text, nullptr, 10) : 1;
}

}  // namespace simt
