// Planted bugs: order among the threads of a grid.
#include <numeric>

#include "kernels/cuda/primitives.cuh"
#include "tests/simt/planted_bug.h"

namespace simt {
namespace {

const std::string kFile = "planted_race_test.cu";
enum class Form { kCorrect, kBug };

std::vector<float> numbers(std::size_t size) {
  std::vector<float> values(size);
  std::iota(values.begin(), values.end(), 0.0f);
  return values;
}

template <Form kForm>
__global__ void reverse(float* x) {
  __shared__ float tile[64];
  const unsigned i = threadIdx.x;
  tile[i] = x[i];  // bug: reverse
  if (kForm == Form::kCorrect) __syncthreads();
  x[i] = tile[63 - i];  // bug: reverse
}

TEST(PlantedRace, NoBarrierBetweenWriteAndRead) {
  const Array<float> x(numbers(64));
  run(reverse<Form::kCorrect>, 1, 64, 0, nullptr, x.data());
  expect_nothing_found();
  EXPECT_EQ(x.host()[0], 63);
  run(reverse<Form::kBug>, 1, 64, 0, nullptr, x.data());
  const auto findings = found();
  ASSERT_FALSE(findings.empty());
  for (const Finding& finding : findings) {
    // Who reads too early finds what nobody wrote as well.
    EXPECT_TRUE(finding.kind == Kind::kSharedRace || finding.kind == Kind::kNotWritten);
    EXPECT_TRUE(lines_of_bug(kFile, "reverse").contains(finding.place.line));
    EXPECT_EQ(finding.kernel, "reverse<(Form)1>");
  }
  EXPECT_TRUE(std::any_of(findings.begin(), findings.end(), [](const Finding& finding) {
    return finding.kind == Kind::kSharedRace;
  }));
}

// The tile is used again: who is ahead overwrites what others still read.
template <Form kForm>
__global__ void sum_tiles(const float* x, float* sums, int tiles) {
  float* tile = serrate::dynamic_shared<float>();
  float sum = 0;
  for (int t = 0; t < tiles; ++t) {
    tile[threadIdx.x] = x[static_cast<unsigned>(t) * 64 + threadIdx.x];  // bug: reuse
    __syncthreads();
    for (int i = 0; i < 64; ++i) sum += tile[i];  // bug: reuse
    if (kForm == Form::kCorrect) __syncthreads();
  }
  sums[threadIdx.x] = sum;
}

TEST(PlantedRace, NoBarrierBeforeReuse) {
  const Array<float> x(numbers(256)), sums(64);
  run(sum_tiles<Form::kCorrect>, 1, 64, 256, nullptr, x.data(), sums.data(), 4);
  expect_nothing_found();
  EXPECT_EQ(sums.host()[63], 255 * 128);
  run(sum_tiles<Form::kBug>, 1, 64, 256, nullptr, x.data(), sums.data(), 4);
  expect_found({Kind::kSharedRace, "sum_tiles<(Form)1>", any_of(64), kFile, "reuse"});
}

template <Form kForm>
__global__ void find_largest(const float* x, float* largest) {
  __shared__ float found_at;
  if (threadIdx.x == 0) found_at = -1;
  __syncthreads();
  const bool is_it = kForm == Form::kCorrect ? x[threadIdx.x] == 63 : x[threadIdx.x] >= 62;
  if (is_it) found_at = static_cast<float>(threadIdx.x);  // bug: two writers
  __syncthreads();
  if (threadIdx.x == 0) *largest = found_at;
}

TEST(PlantedRace, TwoWriters) {
  const Array<float> x(numbers(64)), largest(1);
  run(find_largest<Form::kCorrect>, 1, 64, 0, nullptr, x.data(), largest.data());
  expect_nothing_found();
  run(find_largest<Form::kBug>, 1, 64, 0, nullptr, x.data(), largest.data());
  expect_found({Kind::kSharedRace, "find_largest<(Form)1>", {62, 63}, kFile, "two writers"});
}

// 16 bytes that are accessed as a whole have accesses in common, until a part is accessed.
enum class Before { kWholes, kParts, kPartsAndAWhole };
template <Form kForm, Before kBefore>
__global__ void read_a_part(float4 value, float* part) {
  float* tile = serrate::dynamic_shared<float>();
  auto& whole = *reinterpret_cast<float4*>(tile);
  if (threadIdx.x == 0) whole = value;
  __syncthreads();
  if (kBefore != Before::kWholes && threadIdx.x == 1) tile[3] = 5;
  __syncthreads();
  if (kBefore == Before::kPartsAndAWhole && threadIdx.x == 0) whole = value;
  __syncthreads();
  if (threadIdx.x == 0) whole = value;  // bug: part of a whole
  if (kForm == Form::kCorrect) __syncthreads();
  if (threadIdx.x == 1) *part = tile[2];  // bug: part of a whole
}

template <Before kBefore>
void find_races_with_parts() {
  const Array<float> part(1);
  for (int i = 0; i < 8; ++i) {  // either of them first
    run(read_a_part<Form::kCorrect, kBefore>, 1, 2, 16, nullptr, float4{1, 2, 3, 4}, part.data());
    expect_nothing_found();
    EXPECT_EQ(part.host()[0], 3);
    run(read_a_part<Form::kBug, kBefore>, 1, 2, 16, nullptr, float4{1, 2, 3, 4}, part.data());
    const auto findings = found();
    ASSERT_EQ(findings.size(), 1);
    EXPECT_EQ(findings[0].kind, Kind::kSharedRace);
    EXPECT_TRUE(lines_of_bug(kFile, "part of a whole").contains(findings[0].place.line));
  }
}

TEST(PlantedRace, PartOfAWhole) {
  find_races_with_parts<Before::kWholes>();
  find_races_with_parts<Before::kParts>();
  find_races_with_parts<Before::kPartsAndAWhole>();
}

// Lanes of a warp do not run in step by themselves, and a shuffle does not order memory.
enum class WarpForm { kSyncWarp, kNothing, kShuffle };
template <WarpForm kForm>
__global__ void rotate_in_warp(float* x) {
  __shared__ float tile[32];
  tile[threadIdx.x] = 0;
  __syncthreads();
  tile[threadIdx.x] = x[threadIdx.x];  // bug: warp
  if (kForm == WarpForm::kSyncWarp) __syncwarp();
  if (kForm == WarpForm::kShuffle) __shfl_xor_sync(0xFFFFFFFF, 1.0f, 1);
  x[threadIdx.x] = tile[(threadIdx.x + 1) % 32];  // bug: warp
}

TEST(PlantedRace, WarpWithoutSyncwarp) {
  const Array<float> x(numbers(32));
  run(rotate_in_warp<WarpForm::kSyncWarp>, 1, 32, 0, nullptr, x.data());
  expect_nothing_found();
  run(rotate_in_warp<WarpForm::kNothing>, 1, 32, 0, nullptr, x.data());
  expect_found({Kind::kSharedRace, "rotate_in_warp<(WarpForm)1>", any_of(32), kFile, "warp"});
  run(rotate_in_warp<WarpForm::kShuffle>, 1, 32, 0, nullptr, x.data());
  expect_found({Kind::kSharedRace, "rotate_in_warp<(WarpForm)2>", any_of(32), kFile, "warp"});
}

// A barrier of one warp says nothing about another.
__global__ void rotate(float* x, unsigned size) {
  float* tile = serrate::dynamic_shared<float>();
  tile[threadIdx.x] = 0;
  __syncthreads();
  tile[threadIdx.x] = x[threadIdx.x];  // bug: other warp
  __syncwarp();
  x[threadIdx.x] = tile[(threadIdx.x + 1) % size];  // bug: other warp
}

TEST(PlantedRace, SyncwarpBetweenWarps) {
  const Array<float> x(numbers(64));
  run(rotate, 1, 32, 256, nullptr, x.data(), 32u);
  expect_nothing_found();
  run(rotate, 1, 64, 256, nullptr, x.data(), 64u);
  expect_found({Kind::kSharedRace, "rotate", {0, 31, 32, 63}, kFile, "other warp"});
}

template <Form kForm>
__global__ void histogram(const float* x, int* bins) {
  const int bin = static_cast<int>(x[threadIdx.x]) % 4;
  if (kForm == Form::kCorrect) {
    atomicAdd(&bins[bin], 1);
  } else {
    bins[bin] += 1;  // bug: no atomic
  }
}

TEST(PlantedRace, GlobalMemoryWithoutAtomics) {
  const Array<float> x(numbers(64));
  const Array<int> bins(std::vector<int>(4, 0));
  run(histogram<Form::kCorrect>, 1, 64, 0, nullptr, x.data(), bins.data());
  expect_nothing_found();
  EXPECT_EQ(bins.host(), std::vector<int>(4, 16));
  run(histogram<Form::kBug>, 1, 64, 0, nullptr, x.data(), bins.data());
  expect_found({Kind::kGlobalRace, "histogram<(Form)1>", any_of(64), kFile, "no atomic"});
}

TEST(PlantedRace, BlocksAreNotOrdered) {
  const Array<float> x(numbers(64));
  const Array<int> bins(std::vector<int>(4, 0));
  run(histogram<Form::kCorrect>, 8, 1, 0, nullptr, x.data(), bins.data());
  expect_nothing_found();
  EXPECT_EQ(bins.host()[0], 8);
  run(histogram<Form::kBug>, 8, 1, 0, nullptr, x.data(), bins.data());
  expect_found({Kind::kGlobalRace, "histogram<(Form)1>", {0}, kFile, "no atomic"});
}

// An atomic on one side alone orders nothing.
template <Form kForm>
__global__ void count_and_reset(int* counter) {
  if (threadIdx.x > 0) atomicAdd(counter, 1);  // bug: half atomic
  if (kForm == Form::kCorrect) __syncthreads();
  if (threadIdx.x == 0) *counter = 0;  // bug: half atomic
}

TEST(PlantedRace, AtomicAgainstPlain) {
  const Array<int> counter(std::vector<int>{0});
  run(count_and_reset<Form::kCorrect>, 1, 32, 0, nullptr, counter.data());
  expect_nothing_found();
  run(count_and_reset<Form::kBug>, 1, 32, 0, nullptr, counter.data());
  expect_found({Kind::kGlobalRace, "count_and_reset<(Form)1>", any_of(32), kFile, "half atomic"});
}

// The last block to finish adds up what all have written: its reads have to be behind a fence, and
// the writes before one.
enum class FenceForm { kBoth, kWriters, kReader, kNone };
template <FenceForm kForm>
__global__ void sum_blocks(const float* x, float* partial, unsigned* done, float* sum) {
  __shared__ bool is_last;
  if (threadIdx.x == 0) {
    partial[blockIdx.x] = x[blockIdx.x];
    if (kForm == FenceForm::kBoth || kForm == FenceForm::kWriters) __threadfence();
    is_last = atomicAdd(done, 1u) == gridDim.x - 1;
    if (kForm == FenceForm::kBoth || kForm == FenceForm::kReader) __threadfence();
  }
  __syncthreads();
  if (!is_last || threadIdx.x != 1) return;
  float total = 0;
  for (unsigned b = 0; b < gridDim.x; ++b) total += partial[b];  // bug: no fence
  *sum = total;
}

TEST(PlantedRace, LastBlockWithoutFence) {
  const Array<float> x(numbers(10)), partial(10), sum(1);
  const Array<unsigned> done(std::vector<unsigned>{0});
  const auto launch = [&](auto kernel) {
    cudaMemset(done.data(), 0, sizeof(unsigned));
    run(kernel, 10, 2, 0, nullptr, x.data(), partial.data(), done.data(), sum.data());
  };
  launch(sum_blocks<FenceForm::kBoth>);
  expect_nothing_found();
  EXPECT_EQ(sum.host()[0], 45);
  launch(sum_blocks<FenceForm::kWriters>);
  expect_found({Kind::kGlobalRace, "sum_blocks<(FenceForm)1>", {1}, kFile, "no fence"});
  launch(sum_blocks<FenceForm::kReader>);
  expect_found({Kind::kGlobalRace, "sum_blocks<(FenceForm)2>", {1}, kFile, "no fence"});
  launch(sum_blocks<FenceForm::kNone>);
  expect_found({Kind::kGlobalRace, "sum_blocks<(FenceForm)3>", {1}, kFile, "no fence"});
}

// Two bytes each: neighbours share a word, not a byte.
template <Form kForm>
__global__ void write_halves(unsigned short* x) {
  const unsigned i = kForm == Form::kCorrect ? threadIdx.x : threadIdx.x / 2;
  x[i] = static_cast<unsigned short>(threadIdx.x);  // bug: same half
}

TEST(PlantedRace, HalvesOfAWord) {
  const Array<unsigned short> x(64);
  run(write_halves<Form::kCorrect>, 1, 64, 0, nullptr, x.data());
  expect_nothing_found();
  run(write_halves<Form::kBug>, 1, 64, 0, nullptr, x.data());
  expect_found({Kind::kGlobalRace, "write_halves<(Form)1>", any_of(64), kFile, "same half"});
}

// Several read, one of them writes: the reads of the others must not be forgotten.
template <Form kForm>
__global__ void read_then_write(float* x, float* copies) {
  copies[threadIdx.x] = x[0];  // bug: read by all
  if (kForm == Form::kCorrect) __syncthreads();
  if (threadIdx.x == 5) x[0] = 1;  // bug: read by all
}

TEST(PlantedRace, OneOfManyReadersWrites) {
  const Array<float> x(numbers(1)), copies(64);
  run(read_then_write<Form::kCorrect>, 1, 64, 0, nullptr, x.data(), copies.data());
  expect_nothing_found();
  run(read_then_write<Form::kBug>, 1, 64, 0, nullptr, x.data(), copies.data());
  expect_found({Kind::kGlobalRace, "read_then_write<(Form)1>", any_of(64), kFile, "read by all"});
}

}  // namespace
}  // namespace simt
