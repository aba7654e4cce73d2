#pragma once

#include <cmath>

#include "serrate/kernels/adamw.h"

namespace serrate {

/// What the elements of one step have in common. The bias corrections are folded into two factors:
/// lr m^ = step_size m, sqrt(v^) = rescale sqrt(v).
struct AdamWFactors {
  float beta1, rest1, beta2, rest2;  // rest = 1 - beta
  float step_size, rescale, eps;
  float shrink;  // learning rate times weight decay
};

inline AdamWFactors adamw_factors(const AdamWOptions& o, std::int64_t step) {
  const auto steps = static_cast<double>(step);
  return {o.beta1,
          static_cast<float>(1 - double{o.beta1}),
          o.beta2,
          static_cast<float>(1 - double{o.beta2}),
          static_cast<float>(o.learning_rate / (1 - std::pow(o.beta1, steps))),
          static_cast<float>(1 / std::sqrt(1 - std::pow(o.beta2, steps))),
          o.eps,
          static_cast<float>(double{o.learning_rate} * o.weight_decay)};
}

}  // namespace serrate
