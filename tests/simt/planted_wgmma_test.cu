// Planted bugs: wgmma.
#include "kernels/cuda/bulk_copy.cuh"
#include "kernels/cuda/primitives.cuh"
#include "kernels/cuda/wgmma.cuh"
#include "tests/simt/planted_bug.h"

namespace simt {
namespace {

using serrate::WgmmaScale;
using serrate::WgmmaType;

const std::string kFile = "planted_wgmma_test.cu";

enum class Form {
  kCorrect,
  kNoProxyFence,
  kNoBarrier,
  kNoFence,
  kNoFenceAfterWrite,
  kNoWait,
  kTooFewGroups,
  kNotCommitted,
  kWritesOperand,
  kOverwritesTile,
  kOtherShape,
  kBaseOffset,
  kOutOfBounds,
  kDivergent,
  kOneWarpLess,
};

// Twice the same product of zeros, 64 x 8 x 16, with a in registers the second time.
template <Form kForm>
__global__ void multiply(float* sums) {
  auto* const a = serrate::dynamic_shared<std::uint16_t>();  // [64, 16], not swizzled
  std::uint16_t* const b = a + 64 * 16;                      // [8, 16]
  for (unsigned i = threadIdx.x; i < 72 * 16; i += 128) a[i] = 0;
  if (kForm != Form::kNoProxyFence) serrate::fence_async_proxy_shared();
  if (kForm != Form::kNoBarrier) __syncthreads();
  std::uint64_t a_at = serrate::wgmma_descriptor(a, {64 * 16, 128});
  const std::uint64_t b_at = serrate::wgmma_descriptor(b, {8 * 16, 128});
  if (kForm == Form::kBaseOffset) a_at |= std::uint64_t{1} << 49;
  if (kForm == Form::kOutOfBounds) a_at += 64 * 16 * 2 >> 4;
  if (kForm == Form::kDivergent && threadIdx.x == 40) a_at = b_at;
  std::uint32_t fragment[4] = {};
  float d[4] = {};
  if (kForm != Form::kNoFence) serrate::wgmma_fence();
  if (kForm == Form::kNoFenceAfterWrite) d[1] = 1;
  serrate::wgmma<WgmmaType::kBf16, 8>(d, a_at, b_at, WgmmaScale::kOverwrite);  // bug: product
  serrate::wgmma_commit();
  if (kForm == Form::kOverwritesTile && threadIdx.x == 9) b[3] = 0;  // bug: tile
  if (kForm == Form::kOneWarpLess && threadIdx.x >= 96) return;
  serrate::wgmma<WgmmaType::kBf16, 8>(d, fragment, b_at, WgmmaScale::kAdd);  // bug: product
  if (kForm != Form::kNotCommitted) serrate::wgmma_commit();
  if (kForm == Form::kWritesOperand) fragment[2] = 1;  // bug: registers
  if (kForm == Form::kOtherShape) {
    serrate::wgmma<WgmmaType::kF16, 8>(d, fragment, b_at, WgmmaScale::kAdd);  // bug: product
    serrate::wgmma_commit();
  }
  if (kForm == Form::kTooFewGroups) serrate::wgmma_wait<1>();
  const bool waits = kForm != Form::kNoWait && kForm != Form::kTooFewGroups;
  if (waits) serrate::wgmma_wait<0>();
  sums[threadIdx.x] = d[0];  // bug: registers
  if (!waits) serrate::wgmma_wait<0>();
}

template <Form kForm>
std::vector<Finding> run_form() {
  const Array<float> sums(128);
  run(multiply<kForm>, 1, 128, 72 * 16 * 2, nullptr, sums.data());
  return found();
}

TEST(PlantedWgmma, Correct) {
  for (const Finding& finding : run_form<Form::kCorrect>()) ADD_FAILURE() << finding.text;
}

TEST(PlantedWgmma, SharedMemory) {
  expect_among(run_form<Form::kNoProxyFence>(), Kind::kProxy, kFile, "product");
  const auto findings = run_form<Form::kNoBarrier>();
  EXPECT_FALSE(findings.empty());
  for (const Finding& finding : findings) {
    EXPECT_TRUE(finding.kind == Kind::kSharedRace || finding.kind == Kind::kNotWritten ||
                finding.kind == Kind::kProxy)
        << finding.text;
  }
  // The product reads first or the thread writes first: either is reported where it comes second.
  bool there = false;
  for (const Finding& finding : run_form<Form::kOverwritesTile>()) {
    there = there || finding.kind == Kind::kSharedRace;
    EXPECT_TRUE(lines_of_bug(kFile, "tile").contains(finding.place.line) ||
                lines_of_bug(kFile, "product").contains(finding.place.line))
        << finding.text;
  }
  EXPECT_TRUE(there);
  expect_among(run_form<Form::kOutOfBounds>(), Kind::kOutOfBounds, kFile, "product");
}

TEST(PlantedWgmma, Registers) {
  expect_among(run_form<Form::kNoFence>(), Kind::kRegisters, kFile, "product");
  expect_among(run_form<Form::kNoFenceAfterWrite>(), Kind::kRegisters, kFile, "product");
  expect_among(run_form<Form::kNoWait>(), Kind::kRegisters, kFile, "registers");
  expect_among(run_form<Form::kTooFewGroups>(), Kind::kRegisters, kFile, "registers");
  expect_among(run_form<Form::kNotCommitted>(), Kind::kRegisters, kFile, "registers");
  expect_among(run_form<Form::kNotCommitted>(), Kind::kInFlight, kFile, "product");
  expect_among(run_form<Form::kWritesOperand>(), Kind::kRegisters, kFile, "registers");
  expect_among(run_form<Form::kOtherShape>(), Kind::kRegisters, kFile, "product");
}

TEST(PlantedWgmma, Operands) {
  expect_among(run_form<Form::kBaseOffset>(), Kind::kBadInstruction, kFile, "product");
  expect_among(run_form<Form::kDivergent>(), Kind::kWarpDivergence, kFile, "product");
  expect_among(run_form<Form::kOneWarpLess>(), Kind::kWarpDivergence, kFile, "product");
}

__global__ void multiply_in_two_warps(float* sums) {
  float d[4] = {};
  const std::uint32_t fragment[4] = {};
  auto* const b = serrate::dynamic_shared<std::uint16_t>();
  for (unsigned i = threadIdx.x; i < 8 * 16; i += 64) b[i] = 0;
  serrate::fence_async_proxy_shared();
  __syncthreads();
  serrate::wgmma_fence();
  serrate::wgmma<WgmmaType::kBf16, 8>(d, fragment, serrate::wgmma_descriptor(b, {128, 128}),
                                      WgmmaScale::kOverwrite);
  serrate::wgmma_commit();
  serrate::wgmma_wait<0>();
  sums[threadIdx.x] = d[0];
}

TEST(PlantedWgmma, InHalfAWarpgroup) {
  const Array<float> sums(64);
  run(multiply_in_two_warps, 1, 64, 256, nullptr, sums.data());
  const auto findings = found();
  ASSERT_FALSE(findings.empty());
  EXPECT_EQ(to_string(findings[0].kind), std::string(to_string(Kind::kWarpDivergence)));
}

}  // namespace
}  // namespace simt
