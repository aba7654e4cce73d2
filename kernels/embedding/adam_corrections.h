#pragma once

#include <cmath>
#include <cstdint>

#include "serrate/embedding_table.h"

namespace serrate {

// Adam's bias corrections, folded into what a step multiplies by.
struct AdamCorrections {
  float learning_rate;  // over 1 - beta1^step
  float second;         // 1 / sqrt(1 - beta2^step), of the second moment's root
};

inline AdamCorrections adam_corrections(const SparseOptimizerOptions& optimizer,
                                        std::int64_t step) {
  const double first = 1 - std::pow(double{optimizer.beta1}, static_cast<double>(step));
  const double second = 1 - std::pow(double{optimizer.beta2}, static_cast<double>(step));
  return {static_cast<float>(optimizer.learning_rate / first),
          static_cast<float>(1 / std::sqrt(second))};
}

}  // namespace serrate
