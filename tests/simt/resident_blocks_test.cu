// Blocks that wait for each other: they have to be resident together.
#include "kernels/cuda/primitives.cuh"
#include "tests/simt/planted_bug.h"

namespace simt {
namespace {

const std::string kFile = "resident_blocks_test.cu";

class ResidentBlocks : public testing::Test {
 protected:
  ~ResidentBlocks() override { set_resident_blocks(1); }
};

// The last block to come raises the flag; the others spin until they see it.
template <bool kFences>
__global__ void sum_of_all_blocks(float* parts, unsigned* arrived, float* sums) {
  __shared__ float part;
  if (threadIdx.x == 0) part = static_cast<float>(blockIdx.x + 1);
  __syncthreads();
  if (threadIdx.x == 0) {
    parts[blockIdx.x] = part;  // bug: grid
    if (kFences) __threadfence();
    atomicAdd(arrived, 1u);
    while (atomicAdd(arrived, 0u) < gridDim.x) __nanosleep(20);  // bug: not resident
    if (kFences) __threadfence();
  }
  __syncthreads();
  if (threadIdx.x < gridDim.x) {
    float sum = part;                                          // of this block still
    for (unsigned b = 0; b < gridDim.x; ++b) sum += parts[b];  // bug: grid
    sums[blockIdx.x * blockDim.x + threadIdx.x] = sum;
  }
}

template <bool kFences>
cudaError_t run_sum(unsigned blocks, bool cooperative, const Array<float>& sums) {
  const Array<float> parts(blocks);
  const Array<unsigned> arrived(std::vector<unsigned>{0});
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeCooperative;
  attribute.val.cooperative = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = blocks;
  config.blockDim = 32;
  config.attrs = &attribute;
  config.numAttrs = cooperative ? 1 : 0;
  return cudaLaunchKernelEx(&config, sum_of_all_blocks<kFences>, parts.data(), arrived.data(),
                            sums.data());
}

TEST_F(ResidentBlocks, WaitForEachOther) {
  const Array<float> sums(4 * 32);
  set_resident_blocks(4);
  run_sum<true>(4, false, sums);
  expect_nothing_found();
  const std::vector<float> host = sums.host();
  for (unsigned b = 0; b < 4; ++b) {
    // Each block has its own `__shared__` variable: 1 + 2 + 3 + 4, and its own part.
    for (unsigned i = 0; i < 4; ++i) EXPECT_EQ(host[b * 32 + i], 10 + b + 1);
  }
}

TEST_F(ResidentBlocks, CooperativeLaunchesAreResident) {
  const Array<float> sums(5 * 32);
  EXPECT_EQ(run_sum<true>(5, true, sums), cudaSuccess);
  expect_nothing_found();
  EXPECT_EQ(sums.host()[0], 15 + 1);
  EXPECT_EQ(run_sum<true>(17, true, sums), cudaErrorCooperativeLaunchTooLarge);
  cudaGetLastError();
}

TEST_F(ResidentBlocks, DeadlockWhenThereIsNoRoom) {
  const Array<float> sums(4 * 32);
  set_resident_blocks(3);
  run_sum<true>(4, false, sums);
  expect_found({Kind::kDeadlock, "sum_of_all_blocks<true>", any_of(32), kFile, "not resident"});
}

TEST_F(ResidentBlocks, FlagWithoutFences) {
  const Array<float> sums(3 * 32);
  run_sum<false>(3, true, sums);
  expect_found({Kind::kGlobalRace, "sum_of_all_blocks<false>", any_of(32), kFile, "grid"});
}

// A persistent kernel: each resident block takes tiles as long as there are some. Dynamic shared
// memory is each block's own.
__global__ void count_tiles(unsigned* next, unsigned tiles, unsigned* taken) {
  auto* tile = serrate::dynamic_shared<unsigned>();
  for (;;) {
    if (threadIdx.x == 0) *tile = atomicAdd(next, 1u);
    __syncthreads();
    const unsigned mine = *tile;
    if (mine >= tiles) return;
    if (threadIdx.x == 0) atomicAdd(taken + mine, 1u);
    __syncthreads();
  }
}

TEST_F(ResidentBlocks, TakeTiles) {
  const Array<unsigned> next(std::vector<unsigned>{0}), taken(std::vector<unsigned>(40, 0));
  set_resident_blocks(4);
  run(count_tiles, 8, 32, 4, nullptr, next.data(), 40u, taken.data());
  expect_nothing_found();
  EXPECT_EQ(taken.host(), std::vector<unsigned>(40, 1));
}

}  // namespace
}  // namespace simt
