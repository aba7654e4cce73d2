// Planted bugs: addresses. Each is a kernel, or a line of one, that differs from its correct twin
// by what the template argument says.
#include "kernels/cuda/primitives.cuh"
#include "tests/simt/planted_bug.h"

namespace simt {
namespace {

const std::string kFile = "planted_memory_test.cu";
enum class Form { kCorrect, kBug };

std::vector<float> floats(std::size_t size) {
  return std::vector<float>(size, 1.0f);
}

// The usual guard is missing: the grid has more threads than there are elements.
template <Form kForm>
__global__ void scale(float* x, int size) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (kForm == Form::kCorrect && i >= size) return;
  const float value = x[i];  // bug: past the end
  x[i] = 2 * value;
}

TEST(PlantedMemory, ReadPastTheEnd) {
  const Array<float> x(floats(100));
  run(scale<Form::kCorrect>, 2, 64, 0, nullptr, x.data(), 100);
  expect_nothing_found();
  EXPECT_EQ(x.host(), std::vector<float>(100, 2.0f));
  run(scale<Form::kBug>, 2, 64, 0, nullptr, x.data(), 100);
  std::vector<unsigned> past;
  for (unsigned i = 36; i < 64; ++i) past.push_back(i);
  expect_found({Kind::kOutOfBounds, "scale<(Form)1>", past, kFile, "past the end"});
}

template <Form kForm>
__global__ void shift(float* to, const float* from, int size) {
  const int i = static_cast<int>(threadIdx.x);
  const int target = kForm == Form::kCorrect ? (i + size - 1) % size : i - 1;
  to[target] = from[i];  // bug: before the begin
}

TEST(PlantedMemory, WriteBeforeTheBegin) {
  const Array<float> from(floats(64)), to(floats(64));
  run(shift<Form::kCorrect>, 1, 64, 0, nullptr, to.data(), from.data(), 64);
  expect_nothing_found();
  run(shift<Form::kBug>, 1, 64, 0, nullptr, to.data(), from.data(), 64);
  expect_found({Kind::kOutOfBounds, "shift<(Form)1>", {0}, kFile, "before the begin"});
}

__global__ void copy_one(float* to, const float* from) {
  if (threadIdx.x == 3) *to = *from;  // bug: copy_one
}

TEST(PlantedMemory, NullPointer) {
  const Array<float> x(floats(1));
  run(copy_one, 1, 32, 0, nullptr, x.data(), static_cast<const float*>(nullptr));
  expect_found({Kind::kOutOfBounds, "copy_one", {3}, kFile, "copy_one"});
}

TEST(PlantedMemory, HostMemoryInAKernel) {
  const Array<float> x(floats(1));
  const std::vector<float> host(1);
  run(copy_one, 1, 32, 0, nullptr, x.data(), host.data());
  expect_found({Kind::kHostMemory, "copy_one", {3}, kFile, "copy_one"});
}

TEST(PlantedMemory, PinnedMemoryInAKernelIsFine) {
  const Array<float> x(1);
  float* pinned = nullptr;
  cudaMallocHost(reinterpret_cast<void**>(&pinned), sizeof *pinned);
  *pinned = 7;
  run(copy_one, 1, 32, 0, nullptr, x.data(), static_cast<const float*>(pinned));
  expect_nothing_found();
  EXPECT_EQ(x.host()[0], 7);
  cudaFreeHost(pinned);
}

TEST(PlantedMemory, ReadOfWhatNothingWrote) {
  const Array<float> x(1), from(floats(2)), fresh(2);
  run(copy_one, 1, 32, 0, nullptr, x.data(), from.data() + 1);
  expect_nothing_found();
  run(copy_one, 1, 32, 0, nullptr, x.data(), fresh.data() + 1);
  expect_found({Kind::kNotWritten, "copy_one", {3}, kFile, "copy_one"});
}

TEST(PlantedMemory, ACopyHandsOnWhatNothingWrote) {
  const Array<float> x(1), fresh(2), other(2);
  cudaMemset(fresh.data(), 0, sizeof(float));
  cudaMemcpy(other.data(), fresh.data(), 2 * sizeof(float), cudaMemcpyDeviceToDevice);
  run(copy_one, 1, 32, 0, nullptr, x.data(), other.data());
  expect_nothing_found();
  run(copy_one, 1, 32, 0, nullptr, x.data(), other.data() + 1);
  expect_found({Kind::kNotWritten, "copy_one", {3}, kFile, "copy_one"});
}

TEST(PlantedMemory, UseAfterFree) {
  const Array<float> x(floats(1));
  float* freed = nullptr;
  cudaMalloc(reinterpret_cast<void**>(&freed), 16);
  cudaMemset(freed, 0, 16);
  run(copy_one, 1, 32, 0, nullptr, x.data(), freed);
  cudaFree(freed);
  expect_nothing_found();
  run(copy_one, 1, 32, 0, nullptr, x.data(), freed);
  expect_found({Kind::kUseAfterFree, "copy_one", {3}, kFile, "copy_one"});
}

__global__ void load_four(float* to, const float* from) {
  const float4 value = *reinterpret_cast<const float4*>(from);  // bug: misaligned
  to[threadIdx.x] = value.x + value.w;
}

TEST(PlantedMemory, MisalignedVector) {
  const Array<float> to(1), from(floats(8));
  run(load_four, 1, 1, 0, nullptr, to.data(), from.data() + 4);
  expect_nothing_found();
  run(load_four, 1, 1, 0, nullptr, to.data(), from.data() + 1);
  expect_found({Kind::kMisaligned, "load_four", {0}, kFile, "misaligned"});
}

__constant__ float kFactors[4] = {1, 2, 3, 4};

template <Form kForm>
__global__ void use_constant(float* to) {
  if (kForm == Form::kBug) const_cast<float*>(kFactors)[threadIdx.x] = 5;  // bug: constant
  to[threadIdx.x] = kFactors[threadIdx.x];
}

TEST(PlantedMemory, WriteToAConstant) {
  const Array<float> to(4);
  run(use_constant<Form::kCorrect>, 1, 4, 0, nullptr, to.data());
  expect_nothing_found();
  run(use_constant<Form::kBug>, 1, 4, 0, nullptr, to.data());
  expect_found({Kind::kConstantWrite, "use_constant<(Form)1>", any_of(4), kFile, "constant"});
}

__global__ void use_dynamic_shared(float* to, int size) {
  float* tile = serrate::dynamic_shared<float>();
  const auto i = static_cast<int>(threadIdx.x);
  if (i < size) tile[i] = static_cast<float>(i);  // bug: dynamic shared
  if (i < size) to[i] = tile[i];
}

TEST(PlantedMemory, DynamicSharedMemoryIsTooSmall) {
  const Array<float> to(64);
  run(use_dynamic_shared, 1, 64, 64 * sizeof(float), nullptr, to.data(), 64);
  expect_nothing_found();
  run(use_dynamic_shared, 1, 64, 63 * sizeof(float), nullptr, to.data(), 64);
  expect_found({Kind::kOutOfBounds, "use_dynamic_shared", {63}, kFile, "dynamic shared"});
}

template <Form kForm>
__global__ void sum_tile(float* to, const float* from, int size) {
  __shared__ float tile[64];
  const auto i = static_cast<int>(threadIdx.x);
  if (kForm == Form::kCorrect) tile[i] = 0;
  if (i < size) tile[i] = from[i];
  __syncthreads();
  if (i > 0) return;
  float sum = 0;
  for (int k = 0; k < 64; ++k) sum += tile[k];  // bug: shared not written
  *to = sum;
}

TEST(PlantedMemory, SharedMemoryStartsUnwritten) {
  const Array<float> to(1), from(floats(40));
  run(sum_tile<Form::kCorrect>, 1, 64, 0, nullptr, to.data(), from.data(), 40);
  expect_nothing_found();
  EXPECT_EQ(to.host()[0], 40);
  run(sum_tile<Form::kBug>, 1, 64, 0, nullptr, to.data(), from.data(), 40);
  expect_found({Kind::kNotWritten, "sum_tile<(Form)1>", {0}, kFile, "shared not written"});
}

// Shared memory does not outlive a block: each has to write its own.
__global__ void first_block_writes(float* to) {
  float* value = serrate::dynamic_shared<float>();
  if (blockIdx.x == 0) *value = 3;
  to[blockIdx.x] = *value;  // bug: of another block
}

TEST(PlantedMemory, SharedMemoryOfAnotherBlock) {
  const Array<float> to(4);
  run(first_block_writes, 1, 1, sizeof(float), nullptr, to.data());
  expect_nothing_found();
  run(first_block_writes, 4, 1, sizeof(float), nullptr, to.data());
  expect_found({Kind::kNotWritten, "first_block_writes", {0}, kFile, "of another block"});
}

}  // namespace
}  // namespace simt
