#pragma once

#include <cstdint>
#include <functional>

#include "serrate/communicator.h"
#include "serrate/planner.h"

namespace serrate {

/// What is moved to measure it.
struct CalibrationWork {
  std::int64_t copy_bytes;       ///< of a copy in the memory of a rank's device
  std::int64_t host_copy_bytes;  ///< in its machine's memory, where the device is a GPU, and to it
  std::int64_t table_bytes;      ///< of all ranks
  std::int64_t num_ids;          ///< looked up by a rank, a multiple of 8
  std::int64_t message_bytes;    ///< to each rank
  int repeats;                   ///< times that are taken, the first one apart
  int calls;                     ///< that follow one another in each
};
/// More than caches hold. On a GPU so much, and so many calls, that launches do not count.
CalibrationWork calibration_work(DeviceType device);

/// The ms that `work` takes, which it queues on the stream.
using Stopwatch = std::function<double(const Stream&, const std::function<void()>& work)>;
/// By events, on a GPU.
double milliseconds_of(const Stream& stream, const std::function<void()>& work);

/// What the planner needs to know of the machines that these ranks are on, measured by all of them
/// at once as in a training: bandwidths of copies, of lookups and updates of random rows and of
/// exchanges, the latency of a message. Takes seconds. The ranks work on the device of `stream`,
/// and so does the topology; on GPUs the machine's memory and the link to it (from pinned memory,
/// the slower of both directions) are measured too. Nodes are the machines, or runs of
/// `ranks_per_node` ranks when that is above 0. What cannot be seen from these ranks (no link, one
/// node, one rank) keeps the planner's default. Collective; the same on every rank.
PlannerTopology calibrate(int ranks_per_node, Communicator& communicator, const Stream& stream,
                          const CalibrationWork& work,
                          const Stopwatch& stopwatch = milliseconds_of);

}  // namespace serrate
