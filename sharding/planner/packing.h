#pragma once

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

}  // namespace serrate
