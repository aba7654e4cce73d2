// Planted bugs: the registers of warpgroups, and elect.sync.
#include "kernels/cuda/warpgroup.cuh"
#include "tests/simt/planted_bug.h"

namespace simt {
namespace {

const std::string kFile = "planted_warpgroup_test.cu";

enum class Form { kCorrect, kTooMany, kNobodyLowers, kLowersToMore, kDifferent, kHalf };
// 384 threads begin with 168 registers each.
template <Form kForm>
__global__ void share() {
  if (threadIdx.x < 128) {
    if (kForm == Form::kLowersToMore) serrate::lower_registers<176>();  // bug: registers
    if (kForm == Form::kDifferent && threadIdx.x < 32) {
      serrate::lower_registers<32>();  // bug: registers
    } else if (kForm != Form::kNobodyLowers) {
      serrate::lower_registers<24>();  // bug: registers
    }
  } else if (kForm == Form::kTooMany) {
    serrate::raise_registers<248>();  // bug: registers
  } else {
    serrate::raise_registers<240>();  // bug: registers
  }
}

TEST(PlantedRegisters, Share) {
  run(share<Form::kCorrect>, 1, 384, 0, nullptr);
  expect_nothing_found();
  run(share<Form::kTooMany>, 1, 384, 0, nullptr);
  expect_found({Kind::kDeadlock, "share<(Form)1>", any_of(384), kFile, "registers"});
  run(share<Form::kNobodyLowers>, 1, 384, 0, nullptr);
  expect_found({Kind::kDeadlock, "share<(Form)2>", any_of(384), kFile, "registers"});
  run(share<Form::kLowersToMore>, 1, 384, 0, nullptr);
  expect_found({Kind::kBadInstruction, "share<(Form)3>", any_of(128), kFile, "registers"});
  run(share<Form::kDifferent>, 1, 384, 0, nullptr);
  expect_found({Kind::kWarpDivergence, "share<(Form)4>", any_of(128), kFile, "registers"});
  run(share<Form::kHalf>, 1, 64, 0, nullptr);
  expect_found({Kind::kWarpDivergence, "share<(Form)5>", any_of(64), kFile, "registers"});
}

template <Form kForm>
__global__ void elect_in_branch(int* x) {
  if (kForm == Form::kCorrect || threadIdx.x < 16) {
    x[threadIdx.x] = serrate::elect_one();  // bug: elect
  }
  __syncwarp();  // bug: elect
}

TEST(PlantedElect, InABranch) {
  const Array<int> x(32);
  run(elect_in_branch<Form::kCorrect>, 1, 32, 0, nullptr, x.data());
  expect_nothing_found();
  run(elect_in_branch<Form::kHalf>, 1, 32, 0, nullptr, x.data());
  expect_found({Kind::kWarpDivergence, "elect_in_branch<(Form)5>", any_of(32), kFile, "elect"});
}

}  // namespace
}  // namespace simt
