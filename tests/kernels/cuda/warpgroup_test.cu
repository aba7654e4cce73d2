// Warp specialisation against the PTX manual (PTX ISA 9.1), on a GPU of sm_90a and on the
// simulated device.
#include "kernels/cuda/warpgroup.cuh"

#include <gtest/gtest.h>

#include <vector>

#include "serrate/buffer.h"
#include "src/core/launch.cuh"

#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define SERRATE_TEST_WARPGROUP 1
#endif

namespace serrate {
namespace {

class WarpgroupTest : public testing::Test {
 protected:
  const Stream stream{Device::cuda(0)};
};

// 9.7.13.16: one lane of the mask, and the same one when the mask is the same.
__global__ void elect(int* elected) {
#ifdef SERRATE_TEST_WARPGROUP
  elected[threadIdx.x] = elect_one();
  elected[32 + threadIdx.x] = elect_one();
  if (threadIdx.x % 4 == 1) elected[64 + threadIdx.x] = elect_one(0x22222222);
#endif
}

TEST_F(WarpgroupTest, ElectsOneLane) {
  Buffer<int> elected = Buffer<int>::zeros(96, stream);
  launch(elect, 1, 32, 0, stream, elected.device_data());
  const std::vector<int> host = elected.to_host(stream);
  int counts[3] = {};
  for (int i = 0; i < 96; ++i) counts[i / 32] += host[i];
  for (const int count : counts) EXPECT_EQ(count, 1);
  for (int i = 0; i < 32; ++i) EXPECT_EQ(host[i], host[32 + i]) << i;
}

// 9.7.19.5: of 3 * 168 registers, one warpgroup keeps 24, so that the others may have 240.
__global__ void __launch_bounds__(384, 1) share_registers(int* done) {
#ifdef SERRATE_TEST_WARPGROUP
  wait_for_prerequisite_grids();
  if (threadIdx.x < 128) {
    lower_registers<24>();
  } else {
    raise_registers<240>();
  }
  launch_dependent_grids();
  done[threadIdx.x] = 1;
#endif
}

TEST_F(WarpgroupTest, SharesRegisters) {
  Buffer<int> done = Buffer<int>::zeros(384, stream);
  launch(share_registers, 1, 384, 0, stream, done.device_data());
  EXPECT_EQ(done.to_host(stream), std::vector<int>(384, 1));
}

}  // namespace
}  // namespace serrate
