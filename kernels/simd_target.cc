#include "kernels/simd_target.h"

#include "kernels/simd_targets.h"
// After the choice of targets.
#include "hwy/highway.h"

namespace serrate {

std::string simd_target() {
  return hwy::TargetName(hwy::SupportedAndGeneratedTargets().front());
}

}  // namespace serrate
