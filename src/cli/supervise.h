#pragma once

#include <atomic>
#include <functional>

namespace serrate::cli {

/// What one process of a supervised command tells its supervisor; in memory that both share.
struct Attempt {
  std::atomic<bool> has_begun{false};    ///< of any attempt so far
  std::atomic<bool> was_stopped{false};  ///< it ends because it was asked to
};

/// Calls `work` in a process of its own, and again in a new one, `max_restarts` times at most,
/// after one that ended by a signal or with the exit code of a retryable failure; not after one
/// that was asked to stop, by signals that this process passes on. Says on stderr what it does and
/// waits between attempts: a second, then twice as long each time, a minute at most. Returns the
/// exit code of the last process; in those processes, what `work` returns.
int supervise(int max_restarts, const std::function<int(Attempt&)>& work);

}  // namespace serrate::cli
