// What the simulated device takes CUDA C++'s warp operations, barriers and atomics to be, on a GPU
// and on the simulated device. Sections are those of the CUDA C++ Programming Guide 13.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <vector>

#include "serrate/buffer.h"
#include "src/core/launch.cuh"

namespace serrate {
namespace {

constexpr unsigned kAll = 0xFFFFFFFF;

class CudaBuiltinsTest : public testing::Test {
 protected:
  const Stream stream{Device::cuda(0)};

  template <typename T>
  std::vector<T> run(void (*kernel)(T*), unsigned threads, std::int64_t size) {
    Buffer<T> result = Buffer<T>::zeros(size, stream);
    launch(kernel, 1, threads, 0, stream, result.device_data());
    return result.to_host(stream);
  }
};

// Warp Shuffle Functions: lane l has 10 l; segments of `width` lanes are warps of their own.
__global__ void shuffle(int* result) {
  const int l = static_cast<int>(threadIdx.x), value = 10 * l;
  int* mine = result + 7 * l;
  mine[0] = __shfl_sync(kAll, value, 5);
  mine[1] = __shfl_sync(kAll, value, 11, 8);
  mine[2] = __shfl_up_sync(kAll, value, 3);
  mine[3] = __shfl_down_sync(kAll, value, 3);
  mine[4] = __shfl_xor_sync(kAll, value, 6);
  mine[5] = __shfl_up_sync(kAll, value, 1, 16);
  mine[6] = __shfl_down_sync(kAll, value, 2, 4);
}

TEST_F(CudaBuiltinsTest, Shuffles) {
  const std::vector<int> result = run(shuffle, 32, 7 * 32);
  for (int l = 0; l < 32; ++l) {
    const int* mine = result.data() + 7 * l;
    EXPECT_EQ(mine[0], 50);
    EXPECT_EQ(mine[1], 10 * (l / 8 * 8 + 3));  // lane 11 modulo 8 of the segment
    EXPECT_EQ(mine[2], 10 * (l < 3 ? l : l - 3));
    EXPECT_EQ(mine[3], 10 * (l > 28 ? l : l + 3));
    EXPECT_EQ(mine[4], 10 * (l ^ 6));
    EXPECT_EQ(mine[5], 10 * (l % 16 == 0 ? l : l - 1));
    EXPECT_EQ(mine[6], 10 * (l % 4 >= 2 ? l : l + 2));
  }
}

__global__ void permute_bytes(unsigned* result) {
  const unsigned x = 0x83020100, y = 0x07068504;
  result[0] = __byte_perm(x, y, 0x6420);
  result[1] = __byte_perm(x, y, 0x7531);
}

// CUDA Math API, __byte_perm: bits 4 i to 4 i + 2 of the selector say which of the eight bytes,
// those of x first, is byte i.
TEST_F(CudaBuiltinsTest, PermutesBytes) {
  const std::vector<unsigned> result = run(permute_bytes, 1, 2);
  EXPECT_EQ(result[0], 0x06040200u);
  EXPECT_EQ(result[1], 0x07858301u);
}

__global__ void shuffle_wide(double* result) {
  const double value = threadIdx.x + 0.125;
  result[threadIdx.x] = __shfl_xor_sync(kAll, value, 16);
}

TEST_F(CudaBuiltinsTest, ShufflesOfEightBytes) {
  const std::vector<double> result = run(shuffle_wide, 32, 32);
  EXPECT_EQ(result[3], 19.125);
  EXPECT_EQ(result[30], 14.125);
}

// Warp Vote, Match and Reduce Functions; the upper half of the warp has a mask of its own.
__global__ void vote(unsigned* result) {
  const unsigned l = threadIdx.x, mask = l < 16 ? 0x0000FFFF : 0xFFFF0000;
  unsigned* mine = result + 8 * l;
  mine[0] = __ballot_sync(mask, l % 3 == 0);
  mine[1] = static_cast<unsigned>(__any_sync(mask, l == 20));
  mine[2] = static_cast<unsigned>(__all_sync(mask, l < 16));
  mine[3] = __match_any_sync(mask, l / 5);
  int all_equal = 0;
  mine[4] = __match_all_sync(mask, l < 16 ? 7u : l, &all_equal);
  mine[5] = __reduce_add_sync(mask, l);
  mine[6] = static_cast<unsigned>(__reduce_min_sync(mask, 3 - static_cast<int>(l)));
  mine[7] = __reduce_or_sync(mask, 1u << l);
}

TEST_F(CudaBuiltinsTest, Votes) {
  const std::vector<unsigned> result = run(vote, 32, 8 * 32);
  const unsigned* low = result.data() + 8 * 7;
  EXPECT_EQ(low[0], 0x9249u);  // lanes 0, 3, .., 15
  EXPECT_EQ(low[1], 0u);
  EXPECT_EQ(low[2], 1u);
  EXPECT_EQ(low[3], 0x3E0u);  // lanes 5 to 9
  EXPECT_EQ(low[4], 0xFFFFu);
  EXPECT_EQ(low[5], 120u);
  EXPECT_EQ(low[6], static_cast<unsigned>(-12));
  EXPECT_EQ(low[7], 0xFFFFu);
  const unsigned* high = result.data() + 8 * 17;
  EXPECT_EQ(high[0], 0x49240000u);  // lanes 18, 21, .., 30
  EXPECT_EQ(high[1], 1u);
  EXPECT_EQ(high[2], 0u);
  EXPECT_EQ(high[3], 0xF0000u);  // lanes 16 to 19
  EXPECT_EQ(high[4], 0u);
  EXPECT_EQ(high[5], 376u);
  EXPECT_EQ(high[6], static_cast<unsigned>(-28));
  EXPECT_EQ(high[7], 0xFFFF0000u);
}

// Synchronization Functions: the barrier counts the predicates of the whole block.
__global__ void count(int* result) {
  const auto i = static_cast<int>(threadIdx.x);
  const int counted = __syncthreads_count(i % 2 == 0);
  const int all = __syncthreads_and(i < 95);
  const int any = __syncthreads_or(i == 70);
  result[i] = 100 * counted + 10 * all + any;
}

TEST_F(CudaBuiltinsTest, BarriersThatCount) {
  for (const int value : run(count, 96, 96)) EXPECT_EQ(value, 4801);
}

// Atomic Functions return what was there before.
__global__ void update(int* result) {
  const auto i = static_cast<int>(threadIdx.x);
  const int before = atomicAdd(&result[0], 1);
  atomicAdd(&result[8 + before], 1);
  atomicMax(&result[1], i);
  atomicMin(&result[2], -i);
  atomicOr(&result[3], 1 << (i % 8));
  atomicXor(&result[4], i);
  if (atomicCAS(&result[5], 0, i + 1) == 0) atomicAdd(&result[6], 1);
  atomicExch(&result[7], 9);
}

TEST_F(CudaBuiltinsTest, Atomics) {
  const std::vector<int> result = run(update, 64, 8 + 64);
  EXPECT_EQ(result[0], 64);
  EXPECT_EQ(result[1], 63);
  EXPECT_EQ(result[2], -63);
  EXPECT_EQ(result[3], 255);
  EXPECT_EQ(result[4], 0);
  EXPECT_EQ(result[6], 1);  // one of them finds the zero
  EXPECT_EQ(result[7], 9);
  for (int i = 0; i < 64; ++i) EXPECT_EQ(result[8 + i], 1);  // each came at a place of its own
}

__global__ void sum_floats(float* result) {
  atomicAdd(result, 0.5f);
}

TEST_F(CudaBuiltinsTest, AtomicsOfFloats) {
  EXPECT_EQ(run(sum_floats, 256, 1)[0], 128);
}

}  // namespace
}  // namespace serrate
