// Planted bugs: mbarriers.
#include "kernels/cuda/mbarrier.cuh"
#include "kernels/cuda/primitives.cuh"
#include "tests/simt/planted_bug.h"

namespace simt {
namespace {

using serrate::Mbarrier;

const std::string kFile = "planted_mbarrier_test.cu";

// Warp 0 hands a tile to warp 1 and gets it back, round by round.
enum class RingForm {
  kCorrect,
  kNoWaitForFull,
  kNoWaitForEmpty,
  kTooFewArrivals,
  kTooManyArrivals,
  kWrongParity,
  kNotInitialized,
  kNoBarrierBehindInit,
};
template <RingForm kForm>
__global__ void ring(int* sums) {
  auto* full = serrate::dynamic_shared<Mbarrier>();
  Mbarrier* const empty = full + 1;
  int* const tile = reinterpret_cast<int*>(full + 2);
  const unsigned lane = threadIdx.x % 32;
  if (threadIdx.x == 0) {
    serrate::mbarrier_init(full, kForm == RingForm::kTooManyArrivals ? 31 : 32);  // bug: init
    if (kForm != RingForm::kNotInitialized) serrate::mbarrier_init(empty, 32);    // bug: init
  }
  if (kForm != RingForm::kNoBarrierBehindInit) __syncthreads();
  int sum = 0;
  for (unsigned round = 0; round < 3; ++round) {
    if (threadIdx.x < 32) {
      const unsigned parity = kForm == RingForm::kWrongParity ? round % 2 : (round + 1) % 2;
      if (kForm != RingForm::kNoWaitForEmpty) serrate::mbarrier_wait(empty, parity);  // bug: wait
      tile[lane] = static_cast<int>(round);                                           // bug: tile
      if (kForm != RingForm::kTooFewArrivals || lane > 0)
        serrate::mbarrier_arrive(full);  // bug: full
    } else {
      if (kForm != RingForm::kNoWaitForFull) serrate::mbarrier_wait(full, round % 2);  // bug: wait
      sum += tile[31 - lane];                                                          // bug: tile
      serrate::mbarrier_arrive(empty);  // bug: arrive
    }
  }
  sums[threadIdx.x] = sum;
}

template <RingForm kForm>
std::vector<Finding> run_ring() {
  const Array<int> sums(64);
  run(ring<kForm>, 1, 64, 16 + 128, nullptr, sums.data());
  return found();
}

// At least one finding of a kind, on a line of that mark.
TEST(PlantedMbarrier, Ring) {
  for (const Finding& finding : run_ring<RingForm::kCorrect>()) ADD_FAILURE() << finding.text;
  expect_among(run_ring<RingForm::kNoWaitForFull>(), Kind::kSharedRace, kFile, "tile");
  expect_among(run_ring<RingForm::kNoWaitForEmpty>(), Kind::kSharedRace, kFile, "tile");
  expect_among(run_ring<RingForm::kTooFewArrivals>(), Kind::kDeadlock, kFile, "wait");
  expect_among(run_ring<RingForm::kTooManyArrivals>(), Kind::kMbarrier, kFile, "full");
  expect_among(run_ring<RingForm::kWrongParity>(), Kind::kDeadlock, kFile, "wait");
  expect_among(run_ring<RingForm::kNotInitialized>(), Kind::kMbarrier, kFile, "wait");
}

TEST(PlantedMbarrier, InitialisationNotOrdered) {
  // Whoever comes first: the barrier is not there yet, or it was made by a thread that nothing
  // orders before.
  const auto findings = run_ring<RingForm::kNoBarrierBehindInit>();
  ASSERT_FALSE(findings.empty());
  for (const Finding& finding : findings) {
    EXPECT_TRUE(finding.kind == Kind::kMbarrier || finding.kind == Kind::kSharedRace)
        << finding.text;
  }
}

enum class UseForm {
  kCorrect,
  kInitTwice,
  kAccess,
  kAfterInvalidate,
  kMisaligned,
  kNoArrivals,
  kParity,
  kMostBytes,
  kGlobal,
};
template <UseForm kForm>
__global__ void use(std::uint64_t* global, std::uint64_t* state) {
  auto* mbarrier = serrate::dynamic_shared<Mbarrier>();
  if (kForm == UseForm::kGlobal) mbarrier = reinterpret_cast<Mbarrier*>(global);
  if (kForm == UseForm::kMisaligned) {
    mbarrier = reinterpret_cast<Mbarrier*>(reinterpret_cast<char*>(mbarrier) + 4);
  }
  serrate::mbarrier_init(mbarrier, kForm == UseForm::kNoArrivals ? 0 : 1);              // bug: use
  if (kForm == UseForm::kInitTwice) serrate::mbarrier_init(mbarrier, 1);                // bug: use
  if (kForm == UseForm::kAccess) *state = mbarrier->state;                              // bug: use
  if (kForm == UseForm::kMostBytes) serrate::mbarrier_expect_bytes(mbarrier, 1 << 20);  // bug: use
  serrate::mbarrier_arrive(mbarrier);
  serrate::mbarrier_wait(mbarrier, kForm == UseForm::kParity ? 2 : 0);  // bug: use
  serrate::mbarrier_invalidate(mbarrier);
  if (kForm == UseForm::kAfterInvalidate) serrate::mbarrier_arrive(mbarrier);  // bug: use
  serrate::mbarrier_init(mbarrier, 7);
  serrate::mbarrier_invalidate(mbarrier);
  mbarrier->state = 3;
  *state = mbarrier->state;
}

template <UseForm kForm>
std::vector<Finding> run_use() {
  const Array<std::uint64_t> global(1), state(1);
  run(use<kForm>, 1, 1, 16, nullptr, global.data(), state.data());
  return found();
}

TEST(PlantedMbarrier, Use) {
  for (const Finding& finding : run_use<UseForm::kCorrect>()) ADD_FAILURE() << finding.text;
  expect_among(run_use<UseForm::kInitTwice>(), Kind::kMbarrier, kFile, "use");
  expect_among(run_use<UseForm::kAccess>(), Kind::kMbarrier, kFile, "use");
  expect_among(run_use<UseForm::kAfterInvalidate>(), Kind::kMbarrier, kFile, "use");
  expect_among(run_use<UseForm::kMisaligned>(), Kind::kMbarrier, kFile, "use");
  expect_among(run_use<UseForm::kNoArrivals>(), Kind::kMbarrier, kFile, "use");
  expect_among(run_use<UseForm::kParity>(), Kind::kBadInstruction, kFile, "use");
  expect_among(run_use<UseForm::kMostBytes>(), Kind::kMbarrier, kFile, "use");
  expect_among(run_use<UseForm::kGlobal>(), Kind::kMbarrier, kFile, "use");
}

// 9.7.13.15: a phase that nobody saw end may not be followed by arrivals.
template <bool kWaits>
__global__ void arrive_twice() {
  auto* mbarrier = serrate::dynamic_shared<Mbarrier>();
  serrate::mbarrier_init(mbarrier, 1);
  serrate::mbarrier_arrive(mbarrier);
  if (kWaits) serrate::mbarrier_wait(mbarrier, 0);
  serrate::mbarrier_arrive(mbarrier);  // bug: unseen
}

TEST(PlantedMbarrier, PhaseThatNobodySaw) {
  run(arrive_twice<true>, 1, 1, 8, nullptr);
  expect_nothing_found();
  run(arrive_twice<false>, 1, 1, 8, nullptr);
  expect_found({Kind::kMbarrier, "arrive_twice<false>", {0}, kFile, "unseen"});
}

}  // namespace
}  // namespace simt
