#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace simt {

/// What the simulated device complains about. Every kind has a planted bug in tests/simt; leaks are
/// for test_environment.cc.
enum class Kind {
  kOutOfBounds,        // no allocation there, or past the end of one
  kUseAfterFree,       // of memory that the stream has passed the free of
  kNotOrdered,         // before the allocation's or after the free's point in stream order; of a
                       // neighbour's shared memory: before it has begun or after its end
  kNotWritten,         // a read of memory that nothing wrote
  kMisaligned,         // an address that is no multiple of the access's size
  kHostMemory,         // a kernel touches memory of the host that is not pinned
  kDeviceMemory,       // host code touches device memory
  kOtherDevice,        // a kernel touches memory of another device
  kConstantWrite,      // a kernel writes its parameters or the program's constants
  kSharedRace,         // two threads, one at least writes, no barrier between
  kGlobalRace,         // the same on global memory, in one kernel
  kStreamRace,         // the same between two operations that streams and events do not order
  kBarrierDivergence,  // threads of a block wait at a barrier that others do not reach
  kWarpDivergence,     // lanes of a mask do not all run the same warp operation with that mask
  kBadLane,            // a lane outside its own mask, or a shuffle from such a lane
  kDeadlock,           // nothing can run any more
  kMbarrier,           // an mbarrier is used otherwise than its state allows
  kProxy,              // no fence between what threads write and an asynchronous operation
  kRegisters,          // registers of a matrix product that is under way, or without its fence
  kInFlight,           // what an asynchronous operation still uses is touched, or is left behind
  kBadInstruction,     // an operand that the PTX manual does not allow
  kBadCall,            // the runtime was called with what it does not take
  kPending,            // host code touches pinned memory that a copy still uses
};

const char* to_string(Kind kind);

struct Dim {
  std::uint32_t x = 0, y = 0, z = 0;
  friend bool operator==(const Dim&, const Dim&) = default;
};

struct Place {
  std::string file;  // without folders
  int line = 0;
};

struct Finding {
  Kind kind = Kind::kBadCall;
  std::string text;    // all there is to say, in one line
  std::string kernel;  // empty for what the host did
  Dim block, thread;
  Place place;
};

/// Keeps a finding; prints it to stderr when SERRATE_SIMT_VERBOSE is set. The same kind at the same
/// place in the same kernel is kept once.
void report(Finding finding);

/// The findings since the last call, which also clears the device's sticky error.
std::vector<Finding> take_findings();

}  // namespace simt
