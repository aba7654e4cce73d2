#pragma once

#include <string>

#include "tests/support/simt/nccl_state.h"

// Ranks that are processes of mpirun. What one has for another is a file in a folder that the ranks
// of a communicator share: slow, and safe when a process dies.

namespace simt::nccl {

/// Whether mpirun started this process beside others.
bool ranks_are_processes();

/// Says that the rank is there, in the folder of the id.
void join_between_processes(Communicator& c, const std::string& folder);
/// Whether all ranks are there; the communicator has its clique then.
bool have_joined(const Pointer& c);

/// The rank is gone; the last one takes the folder with it.
void leave_between_processes(const Communicator& c);

/// Goes on with a launch that is at the front of its streams: writes what it has for other ranks
/// and, when theirs has come, runs it.
void advance_between_processes(const LaunchPointer& launch);

}  // namespace simt::nccl
