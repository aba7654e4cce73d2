#pragma once

#include <atomic>
#include <cstdint>

#include "serrate/communicator.h"
#include "tests/support/simt/library.h"
#include "tests/support/simt/stream.h"

// What goes on on a simulated GPU while a stream is held.

namespace serrate {

inline simt::StreamId id_of(const Stream& stream) {
  return simt::stream_id(static_cast<cudaStream_t>(stream.native()));
}

inline bool is_idle(simt::StreamId stream) {
  const simt::Lock lock;
  return simt::stream_is_idle(stream);
}
inline bool is_idle(const Stream& stream) {
  return is_idle(id_of(stream));
}

/// What is queued on the stream from now on does not begin before `ends`.
inline void hold(const Stream& stream, const std::atomic<bool>& ends) {
  const simt::Lock lock;
  simt::enqueue_waiting(
      id_of(stream), "held", [](const auto&) {}, [&ends] { return ends.load(); },
      [] { return false; });
}

/// Collective: lets the device run all that can run.
inline void run_what_can(Communicator& communicator) {
  communicator.barrier("all is queued");
  {
    const simt::Lock lock;
    for (std::uint64_t before = simt::movements() + 1; before != simt::movements();) {
      before = simt::movements();
      simt::make_progress();
    }
  }
  communicator.barrier("it ran");
}

}  // namespace serrate
