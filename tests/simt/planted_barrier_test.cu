// Planted bugs: barriers and warp operations that do not all reach, and waits that never end.
#include "kernels/cuda/primitives.cuh"
#include "tests/simt/planted_bug.h"

namespace simt {
namespace {

const std::string kFile = "planted_barrier_test.cu";
constexpr unsigned kFullMask = 0xFFFFFFFF;
enum class Form { kCorrect, kBug };

template <Form kForm>
__global__ void barrier_in_branch(float* x, unsigned size) {
  __shared__ float sum;
  if (threadIdx.x == 0) sum = 0;
  if (kForm == Form::kCorrect) __syncthreads();
  if (threadIdx.x < size) {
    if (kForm == Form::kBug) __syncthreads();  // bug: in a branch
    atomicAdd(&sum, 1.0f);
  }
  __syncthreads();  // bug: in a branch
  x[threadIdx.x] = sum;
}

TEST(PlantedBarrier, InABranch) {
  const Array<float> x(64);
  run(barrier_in_branch<Form::kCorrect>, 1, 64, 0, nullptr, x.data(), 40u);
  expect_nothing_found();
  EXPECT_EQ(x.host()[5], 40);
  run(barrier_in_branch<Form::kBug>, 1, 64, 0, nullptr, x.data(), 40u);
  const auto findings = found();
  ASSERT_FALSE(findings.empty());
  EXPECT_EQ(to_string(findings[0].kind), std::string(to_string(Kind::kBarrierDivergence)));
  EXPECT_EQ(findings[0].kernel, "barrier_in_branch<(Form)1>");
  EXPECT_TRUE(lines_of_bug(kFile, "in a branch").contains(findings[0].place.line));
}

template <Form kForm>
__global__ void early_exit(float* x, unsigned size) {
  __shared__ float tile[64];
  if (kForm == Form::kBug && threadIdx.x >= size) return;
  if (threadIdx.x < size) tile[threadIdx.x] = 1;
  __syncthreads();  // bug: exited
  if (threadIdx.x < size) x[threadIdx.x] = tile[size - 1 - threadIdx.x];
}

TEST(PlantedBarrier, AThreadHasExited) {
  const Array<float> x(64);
  run(early_exit<Form::kCorrect>, 1, 64, 0, nullptr, x.data(), 50u);
  expect_nothing_found();
  run(early_exit<Form::kBug>, 1, 64, 0, nullptr, x.data(), 50u);
  expect_found({Kind::kBarrierDivergence, "early_exit<(Form)1>", any_of(50), kFile, "exited"});
}

// A loop whose length differs between threads.
template <Form kForm>
__global__ void barrier_in_loop(const int* lengths) {
  const int length = kForm == Form::kCorrect ? lengths[0] : lengths[threadIdx.x];
  for (int i = 0; i < length; ++i) __syncthreads();  // bug: loop
}

TEST(PlantedBarrier, LoopsOfDifferentLengths) {
  const Array<int> lengths(std::vector<int>{3, 3, 3, 4});
  run(barrier_in_loop<Form::kCorrect>, 1, 4, 0, nullptr, lengths.data());
  expect_nothing_found();
  run(barrier_in_loop<Form::kBug>, 1, 4, 0, nullptr, lengths.data());
  expect_found({Kind::kBarrierDivergence, "barrier_in_loop<(Form)1>", {3}, kFile, "loop"});
}

template <Form kForm>
__global__ void sum_of_some(const float* x, float* sum, unsigned size) {
  float value = kForm == Form::kBug || threadIdx.x < size ? x[threadIdx.x] : 0;
  if (kForm == Form::kBug && threadIdx.x >= size) return;
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    value += __shfl_xor_sync(kFullMask, value, lanes);  // bug: exited lane
  }
  if (threadIdx.x == 0) *sum = value;
}

TEST(PlantedWarp, ALaneOfTheMaskHasExited) {
  const Array<float> x(std::vector<float>(32, 1)), sum(1);
  run(sum_of_some<Form::kCorrect>, 1, 32, 0, nullptr, x.data(), sum.data(), 20u);
  expect_nothing_found();
  EXPECT_EQ(sum.host()[0], 20);
  run(sum_of_some<Form::kBug>, 1, 32, 0, nullptr, x.data(), sum.data(), 20u);
  expect_found({Kind::kWarpDivergence, "sum_of_some<(Form)1>", any_of(20), kFile, "exited lane"});
}

__global__ void shuffle_all(float* x) {
  x[threadIdx.x] = __shfl_down_sync(kFullMask, 1.0f, 1);  // bug: no lane
}

TEST(PlantedWarp, ALaneOfTheMaskDoesNotExist) {
  const Array<float> x(32);
  run(shuffle_all, 1, 32, 0, nullptr, x.data());
  expect_nothing_found();
  run(shuffle_all, 1, 24, 0, nullptr, x.data());
  expect_found({Kind::kWarpDivergence, "shuffle_all", any_of(24), kFile, "no lane"});
}

template <Form kForm>
__global__ void vote_of_lower_half(unsigned* votes) {
  const unsigned mask = 0xFFFF;
  if (kForm == Form::kCorrect && threadIdx.x >= 16) return;
  votes[threadIdx.x] = __ballot_sync(mask, threadIdx.x % 2);  // bug: outside
}

TEST(PlantedWarp, OutsideItsMask) {
  const Array<unsigned> votes(32);
  run(vote_of_lower_half<Form::kCorrect>, 1, 32, 0, nullptr, votes.data());
  expect_nothing_found();
  EXPECT_EQ(votes.host()[3], 0xAAAAu);
  run(vote_of_lower_half<Form::kBug>, 1, 32, 0, nullptr, votes.data());
  expect_found({Kind::kBadLane, "vote_of_lower_half<(Form)1>", from_to(16, 32), kFile, "outside"});
}

template <Form kForm>
__global__ void broadcast_in_half(int* x) {
  const unsigned mask = threadIdx.x < 16 ? 0x0000FFFF : 0xFFFF0000;
  const int source = kForm == Form::kCorrect && threadIdx.x >= 16 ? 16 : 0;
  x[threadIdx.x] = __shfl_sync(mask, static_cast<int>(threadIdx.x), source);  // bug: source
}

TEST(PlantedWarp, ShuffleFromALaneOutsideTheMask) {
  const Array<int> x(32);
  run(broadcast_in_half<Form::kCorrect>, 1, 32, 0, nullptr, x.data());
  expect_nothing_found();
  EXPECT_EQ(x.host()[20], 16);
  run(broadcast_in_half<Form::kBug>, 1, 32, 0, nullptr, x.data());
  expect_found({Kind::kBadLane, "broadcast_in_half<(Form)1>", from_to(16, 32), kFile, "source"});
}

// Both sides of a branch name all lanes.
template <Form kForm>
__global__ void sync_in_branches(int* x) {
  const unsigned mask = kForm == Form::kBug ? kFullMask : threadIdx.x < 8 ? 0xFF : 0xFFFFFF00;
  if (threadIdx.x < 8) {
    x[threadIdx.x] = __any_sync(mask, 1);  // bug: branches
  } else {
    x[threadIdx.x] = __all_sync(mask, 0);  // bug: branches
  }
}

TEST(PlantedWarp, DifferentOperationsWithOneMask) {
  const Array<int> x(32);
  run(sync_in_branches<Form::kCorrect>, 1, 32, 0, nullptr, x.data());
  expect_nothing_found();
  run(sync_in_branches<Form::kBug>, 1, 32, 0, nullptr, x.data());
  expect_found({Kind::kWarpDivergence, "sync_in_branches<(Form)1>", any_of(32), kFile, "branches"});
}

// Lanes are not in step: who is active is no more than the lane itself.
template <Form kForm>
__global__ void active_mask(int* x) {
  const unsigned mask = kForm == Form::kBug ? __activemask() : kFullMask;
  x[threadIdx.x] = __shfl_sync(mask, static_cast<int>(threadIdx.x), 0);  // bug: active mask
}

TEST(PlantedWarp, ActiveMaskIsNoSynchronisation) {
  const Array<int> x(32);
  run(active_mask<Form::kCorrect>, 1, 32, 0, nullptr, x.data());
  expect_nothing_found();
  run(active_mask<Form::kBug>, 1, 32, 0, nullptr, x.data());
  expect_found({Kind::kBadLane, "active_mask<(Form)1>", from_to(1, 32), kFile, "active mask"});
}

// The consumer waits for a flag that nobody raises.
template <Form kForm>
__global__ void wait_for_flag(int* flag) {
  if (threadIdx.x == 0) {
    while (atomicAdd(flag, 0) == 0) __nanosleep(20);
  } else if (kForm == Form::kCorrect) {
    atomicExch(flag, 1);
  }
}

TEST(PlantedDeadlock, SpinsForEver) {
  const Array<int> flag(std::vector<int>{0});
  run(wait_for_flag<Form::kCorrect>, 1, 2, 0, nullptr, flag.data());
  expect_nothing_found();
  cudaMemset(flag.data(), 0, sizeof(int));
  run(wait_for_flag<Form::kBug>, 1, 2, 0, nullptr, flag.data());
  const auto findings = found();
  ASSERT_EQ(findings.size(), 1u);
  EXPECT_EQ(to_string(findings[0].kind), std::string(to_string(Kind::kDeadlock)));
  EXPECT_EQ(findings[0].kernel, "wait_for_flag<(Form)1>");
  EXPECT_EQ(findings[0].thread.x, 0u);
}

}  // namespace
}  // namespace simt
