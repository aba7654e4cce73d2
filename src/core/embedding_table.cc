#include "serrate/embedding_table.h"

#include <array>
#include <utility>

#include "serrate/error.h"

namespace serrate {
namespace {

constexpr std::array kOptimizerNames = {
    std::pair{SparseOptimizer::kSgd, "sgd"},
    std::pair{SparseOptimizer::kAdagrad, "adagrad"},
    std::pair{SparseOptimizer::kRowWiseAdagrad, "row_wise_adagrad"},
    std::pair{SparseOptimizer::kAdam, "adam"},
};

}  // namespace

std::string to_string(SparseOptimizer type) {
  for (const auto& [candidate, name] : kOptimizerNames) {
    if (candidate == type) return name;
  }
  throw Error("SparseOptimizer out of range");
}

SparseOptimizer sparse_optimizer_from_string(const std::string& name) {
  std::string names;
  for (const auto& [type, candidate] : kOptimizerNames) {
    if (candidate == name) return type;
    names += (names.empty() ? "" : ", ") + std::string(candidate);
  }
  throw usage_error("no optimizer \"" + name + "\" (there are: " + names + ")");
}

}  // namespace serrate
