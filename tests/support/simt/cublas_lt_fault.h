#pragma once

#include <optional>

namespace simt {

/// How cuBLASLt's heuristics say that no algorithm makes a product. All three are documented.
enum class NoAlgorithm {
  kNotSupported,  ///< by the call's status
  kNoResult,      ///< by success and no result
  kFailedResult,  ///< by the state of their result
};
/// What heuristics say from now on; without a value, they find algorithms again.
void plant_no_algorithm(std::optional<NoAlgorithm> how);

}  // namespace simt
