#pragma once

#include <algorithm>
#include <ctime>

namespace serrate {

/// Processor time of this thread: what others do on the machine is not in it, but for the caches.
inline double processor_seconds() {
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

/// Calls f; `least` becomes the time that it took if that is less.
template <typename F>
void keep_least(double& least, F&& f) {
  const double start = processor_seconds();
  f();
  least = std::min(least, processor_seconds() - start);
}

}  // namespace serrate
