// GoogleTest's main with --target=AVX2: the kernels run on that instruction set of Highway, not on
// the best that the CPU has. Exit code 77 when the CPU does not have it.
#include <gtest/gtest.h>

#include <cstdio>
#include <string>

#include "kernels/simd/targets.h"
// After the choice of targets.
#include "hwy/highway.h"

namespace {

bool use_target(const std::string& name) {
  for (const std::int64_t target : hwy::SupportedAndGeneratedTargets()) {
    if (name != hwy::TargetName(target)) continue;
    hwy::SetSupportedTargetsForTest(target);
    return true;
  }
  return false;
}

}  // namespace

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const std::string option = "--target=";
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument.starts_with(option) && !use_target(argument.substr(option.size()))) {
      std::fprintf(stderr, "no target %s on this CPU\n", argument.c_str());
      return 77;
    }
  }
  return RUN_ALL_TESTS();
}
