// Planted bugs: the use of kernels/cuda/primitives.cuh.
#include "kernels/cuda/primitives.cuh"
#include "tests/simt/planted_bug.h"

namespace simt {
namespace {

const std::string kFile = "planted_primitive_test.cu";
enum class Form { kCorrect, kBug };

// A copy has arrived for the thread that waited, for others behind a barrier.
enum class CopyForm { kCorrect, kNoWait, kNoBarrier, kTooFewGroups };
template <CopyForm kForm>
__global__ void reverse(const float4* from, float4* to) {
  auto* tile = serrate::dynamic_shared<float4>();
  serrate::copy_async(tile + threadIdx.x, from + threadIdx.x);  // bug: arrives
  serrate::copy_async_commit();
  if (kForm == CopyForm::kCorrect || kForm == CopyForm::kNoBarrier) serrate::copy_async_wait<0>();
  if (kForm == CopyForm::kTooFewGroups) serrate::copy_async_wait<1>();
  if (kForm != CopyForm::kNoBarrier) __syncthreads();
  const float4 value = tile[31 - threadIdx.x];  // bug: arrives
  serrate::copy_async_wait<0>();                // bug: arrives
  to[threadIdx.x] = value;
}

TEST(PlantedCopy, ReadTooEarly) {
  const Array<float4> from(std::vector<float4>(32)), to(32);
  const auto launch = [&](auto kernel) {
    run(kernel, 1, 32, 512, nullptr, from.data(), to.data());
  };
  launch(reverse<CopyForm::kCorrect>);
  expect_nothing_found();
  for (int form = 1; form < 4; ++form) {
    launch(form == 1   ? reverse<CopyForm::kNoWait>
           : form == 2 ? reverse<CopyForm::kNoBarrier>
                       : reverse<CopyForm::kTooFewGroups>);
    const auto findings = found();
    EXPECT_FALSE(findings.empty()) << form;
    for (const Finding& finding : findings) {
      EXPECT_TRUE(finding.kind == Kind::kSharedRace || finding.kind == Kind::kNotWritten)
          << finding.text;
      EXPECT_TRUE(lines_of_bug(kFile, "arrives").contains(finding.place.line)) << finding.text;
    }
  }
}

__global__ void copy_from(const float* from) {
  auto* tile = serrate::dynamic_shared<float4>();
  serrate::copy_async(tile, from);  // bug: copy aligned
  serrate::copy_async_wait<0>();
}

TEST(PlantedCopy, Misaligned) {
  const Array<float> from(std::vector<float>(8));
  run(copy_from, 1, 1, 16, nullptr, from.data() + 4);
  expect_nothing_found();
  run(copy_from, 1, 1, 16, nullptr, from.data() + 1);
  expect_found({Kind::kBadInstruction, "copy_from", {0}, kFile, "copy aligned"});
}

__global__ void load_rows(int pitch) {
  auto* tile = serrate::dynamic_shared<unsigned short>();
  for (int i = static_cast<int>(threadIdx.x); i < 8 * pitch; i += 32) tile[i] = 0;
  __syncwarp();
  std::uint32_t fragment[1];
  serrate::load_matrices(fragment, tile + static_cast<int>(threadIdx.x % 8) * pitch);  // bug: row
}

TEST(PlantedLdmatrix, MisalignedRow) {
  run(load_rows, 1, 32, 512, nullptr, 16);
  expect_nothing_found();
  run(load_rows, 1, 32, 512, nullptr, 12);
  expect_found({Kind::kBadInstruction, "load_rows", {1, 3, 5, 7}, kFile, "row"});
}

template <Form kForm>
__global__ void multiply_in_branch(float* sums) {
  float d[4] = {};
  const std::uint32_t a[4] = {}, b[2] = {};
  if (kForm == Form::kCorrect || threadIdx.x < 16) {
    serrate::mma_m16n8k16_bf16(d, a, b);  // bug: half a warp
  }
  __syncwarp();
  sums[threadIdx.x] = d[0];
}

TEST(PlantedMma, InHalfAWarp) {
  const Array<float> sums(32);
  run(multiply_in_branch<Form::kCorrect>, 1, 32, 0, nullptr, sums.data());
  expect_nothing_found();
  run(multiply_in_branch<Form::kBug>, 1, 32, 0, nullptr, sums.data());
  const auto findings = found();
  ASSERT_EQ(findings.size(), 1u);
  EXPECT_EQ(to_string(findings[0].kind), std::string(to_string(Kind::kWarpDivergence)));
  EXPECT_EQ(findings[0].kernel, "multiply_in_branch<(Form)1>");
}

enum class BarrierForm { kCorrect, kOtherCount, kTooMany, kOddCount, kNoBarrier };
template <BarrierForm kForm>
__global__ void produce(float* x) {
  float* value = serrate::dynamic_shared<float>();
  const bool producer = threadIdx.x < 32;
  const unsigned threads = kForm == BarrierForm::kOddCount                  ? 63
                           : kForm == BarrierForm::kTooMany                 ? 96
                           : kForm == BarrierForm::kOtherCount && !producer ? 32
                                                                            : 64;
  if (producer) {
    if (threadIdx.x == 0) *value = 3;             // bug: produce
    if (kForm != BarrierForm::kNoBarrier) {       // the flag alone orders nothing
      serrate::named_barrier_arrive(1, threads);  // bug: produce
    }
  } else {
    if (kForm != BarrierForm::kNoBarrier) {
      serrate::named_barrier_sync(1, threads);  // bug: produce
    }
    x[threadIdx.x] = *value;  // bug: produce
  }
}

template <BarrierForm kForm>
void expect_barrier(Kind kind, const char* name, const std::vector<unsigned>& threads) {
  const Array<float> x(64);
  run(produce<kForm>, 1, 64, sizeof(float), nullptr, x.data());
  const auto findings = found();
  ASSERT_FALSE(findings.empty()) << name;
  bool there = false;
  for (const Finding& finding : findings) {
    there = there || finding.kind == kind;
    EXPECT_TRUE(lines_of_bug(kFile, "produce").contains(finding.place.line)) << finding.text;
    EXPECT_TRUE(std::count(threads.begin(), threads.end(), finding.thread.x)) << finding.text;
  }
  EXPECT_TRUE(there) << findings[0].text;
}

TEST(PlantedNamedBarrier, Counts) {
  const Array<float> x(64);
  run(produce<BarrierForm::kCorrect>, 1, 64, sizeof(float), nullptr, x.data());
  expect_nothing_found();
  expect_barrier<BarrierForm::kOddCount>(Kind::kBadInstruction, "odd", any_of(64));
  expect_barrier<BarrierForm::kTooMany>(Kind::kDeadlock, "too many", from_to(32, 64));
  expect_barrier<BarrierForm::kOtherCount>(Kind::kBarrierDivergence, "other", any_of(64));
  expect_barrier<BarrierForm::kNoBarrier>(Kind::kSharedRace, "none", any_of(64));
}

}  // namespace
}  // namespace simt
