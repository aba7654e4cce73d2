#include "tests/support/simt/findings.h"

#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <set>
#include <tuple>
#include <utility>

#include "tests/support/simt/stream.h"

namespace simt {
namespace {

struct Kept {
  std::mutex mutex;
  std::vector<Finding> findings;
  std::set<std::tuple<Kind, std::string, std::string, int>> places;
};

Kept& kept() {
  static Kept instance;
  return instance;
}

}  // namespace

const char* to_string(Kind kind) {
  switch (kind) {
    case Kind::kOutOfBounds:
      return "out of bounds";
    case Kind::kUseAfterFree:
      return "use after free";
    case Kind::kNotOrdered:
      return "not ordered with the allocation or the free";
    case Kind::kNotWritten:
      return "read of memory that nothing wrote";
    case Kind::kMisaligned:
      return "misaligned address";
    case Kind::kHostMemory:
      return "host memory in a kernel";
    case Kind::kDeviceMemory:
      return "device memory on the host";
    case Kind::kOtherDevice:
      return "memory of another device";
    case Kind::kConstantWrite:
      return "write to constant memory";
    case Kind::kSharedRace:
      return "race on shared memory";
    case Kind::kGlobalRace:
      return "race on global memory";
    case Kind::kStreamRace:
      return "race between streams";
    case Kind::kBarrierDivergence:
      return "divergent barrier";
    case Kind::kWarpDivergence:
      return "divergent warp operation";
    case Kind::kBadLane:
      return "lane outside the mask";
    case Kind::kDeadlock:
      return "deadlock";
    case Kind::kMbarrier:
      return "misused mbarrier";
    case Kind::kProxy:
      return "missing proxy fence";
    case Kind::kRegisters:
      return "registers of an asynchronous product";
    case Kind::kInFlight:
      return "asynchronous operation under way";
    case Kind::kBadInstruction:
      return "invalid operand";
    case Kind::kBadCall:
      return "invalid call";
    case Kind::kPending:
      return "pinned memory that a copy still uses";
  }
  return "?";
}

void report(Finding finding) {
  Kept& k = kept();
  const std::lock_guard lock(k.mutex);
  const bool on_host = finding.kernel.empty();
  if (!on_host &&
      !k.places.insert({finding.kind, finding.kernel, finding.place.file, finding.place.line})
           .second) {
    return;
  }
  if (std::getenv("SERRATE_SIMT_VERBOSE")) {
    std::fprintf(stderr, "simt: %s: %s\n", to_string(finding.kind), finding.text.c_str());
  }
  k.findings.push_back(std::move(finding));
}

std::vector<Finding> take_findings() {
  clear_sticky_error();
  Kept& k = kept();
  const std::lock_guard lock(k.mutex);
  k.places.clear();
  return std::exchange(k.findings, {});
}

}  // namespace simt
