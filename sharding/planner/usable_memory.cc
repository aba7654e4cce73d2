#include <algorithm>

#include "serrate/planner.h"

namespace serrate {

// Parameters, gradients, optimizer state and what is in flight of them (TorchRec's factor).
constexpr std::int64_t kDenseFactor = 6;

PlannerMemory usable_memory(const PlannerModel& model, const PlannerTopology& topology) {
  PlannerMemory usable{topology.device_bytes, topology.host_bytes};
  auto& near = topology.device == PlannerDevice::kCuda ? usable.device_bytes : usable.host_bytes;
  for (std::int64_t& bytes : near) {
    const auto kept =
        static_cast<std::int64_t>((1 - topology.reserve) * static_cast<double>(bytes));
    bytes = std::max<std::int64_t>(0, kept - kDenseFactor * model.dense_bytes);
  }
  return usable;
}

}  // namespace serrate
