#pragma once

#include <chrono>
#include <functional>

#include "serrate/thread_communicator.h"

namespace serrate {

/// Runs body on `size` ranks that are threads of the test; throws the error of the rank that failed
/// first. The deadline is for a test that hangs, with room for a slow sanitizer run.
inline void run_ranks(int size, const std::function<void(Communicator&)>& body) {
  run_thread_ranks(size, std::chrono::seconds(60), body);
}

}  // namespace serrate
