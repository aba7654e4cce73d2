// Planted bugs: bulk copies.
#include "kernels/cuda/bulk_copy.cuh"
#include "kernels/cuda/primitives.cuh"
#include "tests/simt/planted_bug.h"

namespace simt {
namespace {

using serrate::Mbarrier;

const std::string kFile = "planted_bulk_copy_test.cu";

// Two tiles of 64 floats come to the same place, one after the other.
enum class LoadForm {
  kCorrect,
  kNoWait,
  kOverwrites,
  kTooManyBytes,
  kTooFewBytes,
  kNoFenceOfInit,
  kWritten,
  kLeft,
  kSize,
  kMisaligned,
  kOutOfBounds,
  kInvalidated,
};
template <LoadForm kForm>
__global__ void load_tiles(const float* from, float* sums) {
  auto* tile = serrate::dynamic_shared<float>();
  auto* const full = reinterpret_cast<Mbarrier*>(tile + 64);
  if (threadIdx.x == 0) {
    serrate::mbarrier_init(full, 1);
    if (kForm != LoadForm::kNoFenceOfInit) serrate::fence_mbarrier_init();
  }
  __syncthreads();
  if (kForm == LoadForm::kWritten) {
    tile[threadIdx.x] = 0;  // reaches the copy by a fence alone
    __syncthreads();
  }
  float sum = 0;
  for (unsigned t = 0; t < (kForm == LoadForm::kNoWait ? 1 : 2); ++t) {
    if (threadIdx.x == 0) {
      const unsigned expected = kForm == LoadForm::kTooManyBytes  ? 272
                                : kForm == LoadForm::kTooFewBytes ? 240
                                                                  : 256;
      const unsigned bytes = kForm == LoadForm::kSize ? 252 : 256;
      const float* source = kForm == LoadForm::kMisaligned    ? from + 1
                            : kForm == LoadForm::kOutOfBounds ? from + 128
                                                              : from + t * 64;
      serrate::mbarrier_arrive_expecting(full, expected);                       // bug: load
      serrate::load_bulk(tile, source, bytes, full);                            // bug: load
      if (kForm == LoadForm::kInvalidated) serrate::mbarrier_invalidate(full);  // bug: load
    }
    if (kForm == LoadForm::kLeft) return;
    if (kForm != LoadForm::kNoWait) serrate::mbarrier_wait(full, t);  // bug: load
    sum += tile[63 - threadIdx.x];                                    // bug: read
    if (kForm != LoadForm::kOverwrites) __syncthreads();
  }
  if (kForm == LoadForm::kNoWait) serrate::mbarrier_wait(full, 0);
  sums[threadIdx.x] = sum;
}

template <LoadForm kForm>
std::vector<Finding> run_load() {
  const Array<float> from(std::vector<float>(128, 1)), sums(64);
  run(load_tiles<kForm>, 1, 64, 64 * 4 + 8, nullptr, from.data(), sums.data());
  return found();
}

TEST(PlantedBulkCopy, Load) {
  for (const Finding& finding : run_load<LoadForm::kCorrect>()) ADD_FAILURE() << finding.text;
  expect_among(run_load<LoadForm::kTooManyBytes>(), Kind::kDeadlock, kFile, "load");
  expect_among(run_load<LoadForm::kNoFenceOfInit>(), Kind::kMbarrier, kFile, "load");
  expect_among(run_load<LoadForm::kWritten>(), Kind::kProxy, kFile, "load");
  expect_among(run_load<LoadForm::kLeft>(), Kind::kInFlight, kFile, "load");
  expect_among(run_load<LoadForm::kSize>(), Kind::kBadInstruction, kFile, "load");
  expect_among(run_load<LoadForm::kMisaligned>(), Kind::kBadInstruction, kFile, "load");
  expect_among(run_load<LoadForm::kOutOfBounds>(), Kind::kOutOfBounds, kFile, "load");
  expect_among(run_load<LoadForm::kInvalidated>(), Kind::kMbarrier, kFile, "load");
}

// Reads that nothing orders with the copy, whichever comes first. A thread that lags two phases
// behind waits for ever.
void expect_race(const std::vector<Finding>& findings) {
  bool there = false;
  for (const Finding& finding : findings) {
    there = there || finding.kind == Kind::kSharedRace || finding.kind == Kind::kNotWritten ||
            finding.kind == Kind::kDeadlock;
    EXPECT_TRUE(lines_of_bug(kFile, "read").contains(finding.place.line) ||
                lines_of_bug(kFile, "load").contains(finding.place.line))
        << finding.text;
  }
  EXPECT_TRUE(there);
}

TEST(PlantedBulkCopy, LoadRaces) {
  expect_race(run_load<LoadForm::kNoWait>());
  expect_race(run_load<LoadForm::kOverwrites>());
}

TEST(PlantedBulkCopy, TooFewBytesAnnounced) {
  // The bytes that come too many count as missing ones of the opposite sign: nobody gets past.
  const auto findings = run_load<LoadForm::kTooFewBytes>();
  ASSERT_FALSE(findings.empty());
}

enum class StoreForm { kCorrect, kNoFence, kNoBarrier, kReuse, kLeft, kUncommitted, kReadsBack };
template <StoreForm kForm>
__global__ void store_tiles(float* to, float* sums) {
  auto* tile = serrate::dynamic_shared<float>();
  float sum = 0;
  for (unsigned t = 0; t < 2; ++t) {
    tile[threadIdx.x] = static_cast<float>(t);  // bug: write
    if (kForm != StoreForm::kNoFence) serrate::fence_async_proxy_shared();
    if (kForm != StoreForm::kNoBarrier) __syncthreads();
    if (threadIdx.x == 0) {
      serrate::store_bulk(to + t * 64, tile, 256);  // bug: store
      if (kForm != StoreForm::kUncommitted) serrate::bulk_commit();
      if (kForm != StoreForm::kReuse && kForm != StoreForm::kLeft) {
        serrate::bulk_wait_read<0>();
      }
      if (kForm == StoreForm::kReadsBack) sum += to[t * 64];  // bug: store
      if (kForm == StoreForm::kCorrect) {
        serrate::bulk_wait<0>();
        sum += to[t * 64];
      }
    }
    __syncthreads();
    if (kForm == StoreForm::kLeft || kForm == StoreForm::kUncommitted) return;
  }
  if (threadIdx.x == 0) serrate::bulk_wait<0>();
  sums[threadIdx.x] = sum;
}

template <StoreForm kForm>
std::vector<Finding> run_store() {
  const Array<float> to(128), sums(64);
  run(store_tiles<kForm>, 1, 64, 256, nullptr, to.data(), sums.data());
  return found();
}

TEST(PlantedBulkCopy, Store) {
  for (const Finding& finding : run_store<StoreForm::kCorrect>()) ADD_FAILURE() << finding.text;
  expect_among(run_store<StoreForm::kNoFence>(), Kind::kProxy, kFile, "store");
  expect_among(run_store<StoreForm::kLeft>(), Kind::kInFlight, kFile, "store");
  expect_among(run_store<StoreForm::kUncommitted>(), Kind::kInFlight, kFile, "store");
  for (const auto& findings :
       {run_store<StoreForm::kNoBarrier>(), run_store<StoreForm::kReuse>()}) {
    ASSERT_FALSE(findings.empty());
    bool there = false;
    for (const Finding& finding : findings) {
      there = there || finding.kind == Kind::kSharedRace || finding.kind == Kind::kNotWritten;
      EXPECT_TRUE(lines_of_bug(kFile, "store").contains(finding.place.line) ||
                  lines_of_bug(kFile, "write").contains(finding.place.line))
          << finding.text;
    }
    EXPECT_TRUE(there);
  }
}

TEST(PlantedBulkCopy, ReadsBackTooEarly) {
  const auto findings = run_store<StoreForm::kReadsBack>();
  bool there = false;
  for (const Finding& finding : findings) {
    there = there || finding.kind == Kind::kGlobalRace || finding.kind == Kind::kNotWritten;
  }
  EXPECT_TRUE(there);
}

// What a thread wrote to global memory, a load of the same kernel sees behind a fence.
template <bool kFence>
__global__ void load_what_was_written(float* x) {
  auto* tile = serrate::dynamic_shared<float>();
  auto* const full = reinterpret_cast<Mbarrier*>(tile + 4);
  for (int i = 0; i < 4; ++i) x[i] = 1;
  if (kFence) serrate::fence_async_proxy();
  serrate::mbarrier_init(full, 1);
  serrate::fence_mbarrier_init();
  serrate::mbarrier_arrive_expecting(full, 16);
  serrate::load_bulk(tile, x, 16, full);  // bug: global fence
  serrate::mbarrier_wait(full, 0);
}

TEST(PlantedBulkCopy, LoadOfWhatTheKernelWrote) {
  const Array<float> x(4);
  run(load_what_was_written<true>, 1, 1, 24, nullptr, x.data());
  expect_nothing_found();
  run(load_what_was_written<false>, 1, 1, 24, nullptr, x.data());
  expect_found({Kind::kProxy, "load_what_was_written<false>", {0}, kFile, "global fence"});
}

// Additions of blocks are atomic; a store is not.
template <bool kAdds>
__global__ void write_from_blocks(float* x) {
  auto* tile = serrate::dynamic_shared<float>();
  for (int i = 0; i < 4; ++i) tile[i] = 1;
  serrate::fence_async_proxy_shared();
  if (kAdds) {
    serrate::add_bulk(x, tile, 16);
  } else {
    serrate::store_bulk(x, tile, 16);  // bug: blocks
  }
  serrate::bulk_commit();
  serrate::bulk_wait<0>();
}

TEST(PlantedBulkCopy, StoresOfTwoBlocks) {
  const Array<float> x(std::vector<float>(4, 0));
  run(write_from_blocks<true>, 3, 1, 16, nullptr, x.data());
  expect_nothing_found();
  EXPECT_EQ(x.host()[3], 3);
  run(write_from_blocks<false>, 3, 1, 16, nullptr, x.data());
  expect_found({Kind::kGlobalRace, "write_from_blocks<false>", {0}, kFile, "blocks"});
}

CUtensorMap map_of(float* data, unsigned rows) {
  const auto map = std::make_unique<CUtensorMap>();  // aligned
  const cuuint64_t sizes[2] = {32, rows}, strides[1] = {128};
  const cuuint32_t box[2] = {32, 8}, ones[2] = {1, 1};
  EXPECT_EQ(
      cuTensorMapEncodeTiled(map.get(), CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 2, data, sizes, strides,
                             box, ones, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                             CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE),
      CUDA_SUCCESS);
  return *map;
}

enum class BoxForm { kCorrect, kMisaligned, kOtherRank, kNoMap, kNegative, kPastTheEnd };
template <BoxForm kForm>
__global__ void copy_box(const __grid_constant__ CUtensorMap map) {
  auto* box = serrate::dynamic_shared<float>();
  auto* const full = reinterpret_cast<Mbarrier*>(box + 256 + 16);
  if (kForm == BoxForm::kMisaligned) box += 16;
  const CUtensorMap none{};
  const CUtensorMap* used = kForm == BoxForm::kNoMap ? &none : &map;
  serrate::mbarrier_init(full, 1);
  serrate::fence_mbarrier_init();
  serrate::mbarrier_arrive_expecting(full, 1024);
  if (kForm == BoxForm::kOtherRank) {
    serrate::load_box(box, used, {0, 0, 0}, full);  // bug: box
  } else {
    serrate::load_box(box, used, {0, -2}, full);  // bug: box
  }
  serrate::mbarrier_wait(full, 0);
  serrate::store_box(used, {0, kForm == BoxForm::kNegative ? -2 : 2}, box);  // bug: box
  serrate::bulk_commit();
  serrate::bulk_wait<0>();
}

template <BoxForm kForm>
std::vector<Finding> run_box() {
  const Array<float> x(std::vector<float>(32 * 8, 1));
  run(copy_box<kForm>, 1, 1, 1024 + 64 + 8, nullptr,
      map_of(x.data(), kForm == BoxForm::kPastTheEnd ? 9 : 8));
  return found();
}

TEST(PlantedBulkCopy, Boxes) {
  for (const Finding& finding : run_box<BoxForm::kCorrect>()) ADD_FAILURE() << finding.text;
  expect_among(run_box<BoxForm::kMisaligned>(), Kind::kBadInstruction, kFile, "box");
  expect_among(run_box<BoxForm::kOtherRank>(), Kind::kBadInstruction, kFile, "box");
  expect_among(run_box<BoxForm::kNoMap>(), Kind::kBadInstruction, kFile, "box");
  expect_among(run_box<BoxForm::kNegative>(), Kind::kBadInstruction, kFile, "box");
  expect_among(run_box<BoxForm::kPastTheEnd>(), Kind::kOutOfBounds, kFile, "box");
}

}  // namespace
}  // namespace simt
