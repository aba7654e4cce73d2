#include "sharding/planner/packing.h"

#include <algorithm>
#include <cmath>

namespace serrate {

double PackingFunction::operator()(double part) const {
  switch (kind) {
    case Kind::kThreshold:
      return part > 1 - parameter ? 1 : part < parameter ? 0 : part;
    case Kind::kCommonParts: {
      const double parts = part * (parameter + 1);
      return parts == std::floor(parts) ? part : std::floor(parts) / parameter;
    }
    case Kind::kRest: {
      const double most = std::floor(1 / parameter);
      if (part == 0.5) return 0.5;
      return part < 0.5 ? std::floor(part / parameter) / most
                        : 1 - std::floor((1 - part) / parameter) / most;
    }
    case Kind::kSteps: {
      const double most = std::floor(1 / parameter);
      const double left = 1 / parameter - most;
      const double steps = std::floor(part / parameter);
      return (steps + std::max(0.0, part / parameter - steps - left) / (1 - left)) / most;
    }
  }
  return part;
}

}  // namespace serrate
