// mbarriers against the PTX manual (PTX ISA 9.1, 9.7.13.15), on a GPU and on the simulated device.
#include "kernels/cuda/mbarrier.cuh"

#include <gtest/gtest.h>

#include <vector>

#include "kernels/cuda/primitives.cuh"
#include "serrate/buffer.h"
#include "src/core/launch.cuh"

namespace serrate {
namespace {

class MbarrierTest : public testing::Test {
 protected:
  const Stream stream{Device::cuda(0)};
};

// 9.7.13.15.2 and .16: test_wait.parity and try_wait.parity tell whether the phase of that parity,
// the current or the one before, is over. The phase before the first one counts as over.
__global__ void walk_through_phases(int* over) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  auto* mbarrier = dynamic_shared<Mbarrier>();
  mbarrier_init(mbarrier, 2);
  for (int arrivals = 0; arrivals <= 6; ++arrivals) {
    over[2 * arrivals] = mbarrier_try_wait(mbarrier, 0);
    over[2 * arrivals + 1] = mbarrier_try_wait(mbarrier, 1);
    if (arrivals < 6) mbarrier_arrive(mbarrier);
  }
  mbarrier_invalidate(mbarrier);
  mbarrier_init(mbarrier, 1);
  over[14] = mbarrier_try_wait(mbarrier, 0);
  mbarrier_arrive(mbarrier);
  over[15] = mbarrier_try_wait(mbarrier, 0);
#endif
}

TEST_F(MbarrierTest, Parity) {
  Buffer<int> over(16, stream);
  launch(walk_through_phases, 1, 1, sizeof(std::uint64_t), stream, over.device_data());
  // Phase 0 while there are 0 and 1 arrivals, 1 from the second one on, 2 from the fourth on.
  const std::vector<int> expected{0, 1, 0, 1, 1, 0, 1, 0, 0, 1, 0, 1, 1, 0, 0, 1};
  EXPECT_EQ(over.to_host(stream), expected);
}

// A ring of two stages: warp 0 produces, warps 1 to 3 consume. A warp arrives once, when its lanes
// are done.
__global__ void pass_through_ring(int* sums, int rounds) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  constexpr unsigned kStages = 2;
  auto* full = dynamic_shared<Mbarrier>();
  Mbarrier* const empty = full + kStages;
  int* const values = reinterpret_cast<int*>(empty + kStages);  // [kStages, 32]
  const unsigned lane = threadIdx.x % 32;
  if (threadIdx.x == 0) {
    for (unsigned s = 0; s < kStages; ++s) {
      mbarrier_init(full + s, 32);
      mbarrier_init(empty + s, 3);
    }
  }
  __syncthreads();
  int sum = 0;
  for (int round = 0; round < rounds; ++round) {
    const unsigned stage = static_cast<unsigned>(round) % kStages;
    const unsigned parity = static_cast<unsigned>(round) / kStages % 2;
    if (threadIdx.x < 32) {
      mbarrier_wait(empty + stage, parity ^ 1);
      values[stage * 32 + lane] = round * 32 + static_cast<int>(lane);
      mbarrier_arrive(full + stage);
    } else {
      mbarrier_wait(full + stage, parity);
      sum += values[stage * 32 + 31 - lane];
      __syncwarp();
      if (lane == 0) mbarrier_arrive(empty + stage);
    }
  }
  sums[threadIdx.x] = sum;
#endif
}

TEST_F(MbarrierTest, Ring) {
  constexpr int kRounds = 7;
  Buffer<int> sums(128, stream);
  launch(pass_through_ring, 1, 128, 4 * sizeof(std::uint64_t) + 64 * sizeof(int), stream,
         sums.device_data(), kRounds);
  const std::vector<int> host = sums.to_host(stream);
  for (int i = 0; i < 128; ++i) {
    // 0 + 32 + ... + 6 * 32, and the lane from the end each time.
    EXPECT_EQ(host[i], i < 32 ? 0 : 21 * 32 + kRounds * (31 - i % 32)) << i;
  }
}

// 9.7.13.15.13: arrive.expect_tx announces bytes before it arrives; expect_tx alone keeps a phase
// open too. Here nothing but threads comes, so that 0 bytes are announced.
__global__ void expect_nothing(int* over) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  auto* mbarrier = dynamic_shared<Mbarrier>();
  mbarrier_init(mbarrier, 1);
  mbarrier_expect_bytes(mbarrier, 0);
  over[0] = mbarrier_try_wait(mbarrier, 0);
  mbarrier_arrive_expecting(mbarrier, 0);
  over[1] = mbarrier_try_wait(mbarrier, 0);
#endif
}

TEST_F(MbarrierTest, NoBytes) {
  Buffer<int> over(2, stream);
  launch(expect_nothing, 1, 1, sizeof(std::uint64_t), stream, over.device_data());
  EXPECT_EQ(over.to_host(stream), (std::vector<int>{0, 1}));
}

}  // namespace
}  // namespace serrate
