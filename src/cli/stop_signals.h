#pragma once

#include <atomic>
#include <string>

namespace serrate::cli {

/// Set by the first SIGTERM, SIGINT, SIGUSR1 or, unless nohup had it ignored, SIGHUP from now on:
/// an orderly end is asked for. One that comes over a second later ends the process at once; within
/// that second it is the same request on another way (a terminal and a supervisor, say).
const std::atomic<bool>& stop_on_signals();

/// As above, and the signal goes on to process `child`, when that is not 0.
const std::atomic<bool>& pass_on_stop_signals(const std::atomic<int>& child);

/// From now on those of these signals that are not ignored remove `file`, which may not be there,
/// and then end the process as they do by themselves.
void remove_on_stop_signals(const std::string& file);

}  // namespace serrate::cli
