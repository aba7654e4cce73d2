#pragma once

#include <algorithm>
#include <cstdint>

namespace serrate {

/// A function of what part of a rank a shard takes, by which the shards of a rank sum to 1 at most
/// wherever their parts do ("dual feasible", Fekete and Schepers 2001, Carlier et al. 2007). Shards
/// that do not come apart, as three of just over a third, count more by it than they take.
struct PackingFunction {
  enum class Kind {
    kThreshold,    // nothing below the parameter, all above 1 - parameter: at most 1/2
    kCommonParts,  // in parts of 1 / (parameter + 1), rounded: a whole number
    kRest,         // in steps of the parameter; above 1/2, what is left beside it: at most 1/2
    kSteps,        // in steps of the parameter, and what the steps leave: at most 1
  };
  Kind kind = Kind::kThreshold;
  double parameter = 0;

  /// For a part from 0 to 1; grows with it.
  double operator()(double part) const;
};

// As std::floor, which is a call where there is no SSE4.1.
inline double whole_part(double parts) {
  return static_cast<double>(static_cast<std::int64_t>(parts));
}

inline double PackingFunction::operator()(double part) const {
  switch (kind) {
    case Kind::kThreshold:
      return part > 1 - parameter ? 1 : part < parameter ? 0 : part;
    case Kind::kCommonParts: {
      const double parts = part * (parameter + 1);
      return parts == whole_part(parts) ? part : whole_part(parts) / parameter;
    }
    case Kind::kRest: {
      const double most = whole_part(1 / parameter);
      if (part == 0.5) return 0.5;
      return part < 0.5 ? whole_part(part / parameter) / most
                        : 1 - whole_part((1 - part) / parameter) / most;
    }
    case Kind::kSteps: {
      const double most = whole_part(1 / parameter);
      const double left = 1 / parameter - most;
      const double steps = whole_part(part / parameter);
      return (steps + std::max(0.0, part / parameter - steps - left) / (1 - left)) / most;
    }
  }
  return part;
}

}  // namespace serrate
