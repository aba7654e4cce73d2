#include "sharding/estimate/optimizer_state.h"

namespace serrate {

double state_floats(const PlannerTable& table, double columns) {
  switch (table.optimizer.value_or(SparseOptimizer::kSgd)) {
    case SparseOptimizer::kSgd:
      return 0;
    case SparseOptimizer::kAdagrad:
      return columns;
    case SparseOptimizer::kRowWiseAdagrad:
      return 1;
    case SparseOptimizer::kAdam:
      return 2 * columns;
  }
  return 0;
}

}  // namespace serrate
