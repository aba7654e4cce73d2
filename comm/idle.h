#pragma once

#include <chrono>
#include <thread>

namespace serrate {

/// Leaves the core to others: the peer that is waited for may be one of them. A sleep takes about
/// 0.1 ms, so only who has waited long sleeps.
inline void idle(std::chrono::steady_clock::duration waited) {
  using namespace std::chrono_literals;
  if (waited < 2ms) {
    std::this_thread::yield();
  } else {
    std::this_thread::sleep_for(50us);
  }
}

}  // namespace serrate
