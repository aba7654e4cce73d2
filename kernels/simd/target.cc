#include "kernels/simd/target.h"

#include "kernels/simd/targets.h"
// After the choice of targets.
#include "hwy/highway.h"

namespace serrate {

std::string simd_target() {
  return hwy::TargetName(hwy::SupportedAndGeneratedTargets().front());
}

}  // namespace serrate
