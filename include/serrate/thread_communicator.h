#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <vector>

#include "serrate/communicator.h"

namespace serrate {

/// A group whose ranks are threads of this process: one communicator for each, in rank order. A
/// communicator that is destroyed or abandoned ends the waiting of its peers.
std::vector<std::unique_ptr<Communicator>> make_thread_communicators(
    int size, std::chrono::milliseconds deadline);

/// Runs body on `size` ranks that are threads; rank 0 is the caller's thread. Throws the error of
/// the rank that failed first, when all have ended.
void run_thread_ranks(int size, std::chrono::milliseconds deadline,
                      const std::function<void(Communicator&)>& body);

}  // namespace serrate
