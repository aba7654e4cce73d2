// Planted bugs: stores and tensor loads to other blocks of a cluster.
#include "kernels/cuda/bulk_copy.cuh"
#include "kernels/cuda/cluster.cuh"
#include "kernels/cuda/primitives.cuh"
#include "kernels/cuda/tensor_map.h"
#include "src/core/launch.cuh"
#include "tests/simt/planted_bug.h"
#include "tests/support/simt/counters.h"

namespace simt {
namespace {

using serrate::cluster_rank;
using serrate::cluster_sync;
using serrate::Mbarrier;

const std::string kFile = "planted_cluster_copy_test.cu";

class PlantedClusterCopy : public testing::Test {
 protected:
  /// What is found in a grid of four blocks of 32 threads, in clusters of two.
  template <typename... Parameters, typename... Arguments>
  std::vector<Finding> run_pairs(void (*kernel)(Parameters...), std::size_t shared_bytes,
                                 const Arguments&... arguments) {
    const Array<float4> result(4 * 32);
    serrate::launch_clusters(2, kernel, 4, 32, shared_bytes, stream_, arguments..., result.data());
    return found();
  }
  static void expect_nothing(const std::vector<Finding>& findings) {
    for (const Finding& finding : findings) ADD_FAILURE() << "false alarm: " << finding.text;
  }

  const serrate::Stream stream_{serrate::Device::cuda(0)};
};

// Two blocks leave 32 values with each other.
enum class StoreForm {
  kCorrect,
  kNoWait,
  kExpectsHalf,
  kExpectsMore,
  kSamePlace,
  kNotBegun,
  kReceiverEnds,
  kMisaligned,
  kRankOutside,
};
template <StoreForm kForm>
__global__ void exchange_values(float4* result) {
  auto* in = serrate::dynamic_shared<float4>();  // [32]
  auto* const full = reinterpret_cast<Mbarrier*>(in + 32);
  const unsigned i = threadIdx.x, rank = cluster_rank();
  if (i == 0) {
    serrate::mbarrier_init(full, 1);
    serrate::fence_mbarrier_init();
    const unsigned bytes = kForm == StoreForm::kExpectsHalf   ? 256
                           : kForm == StoreForm::kExpectsMore ? 528
                                                              : 512;
    serrate::mbarrier_arrive_expecting(full, bytes);
  }
  if (kForm != StoreForm::kNotBegun) cluster_sync();
  float4* to = in + (kForm == StoreForm::kSamePlace ? i / 2 : i);
  if (kForm == StoreForm::kMisaligned) to = reinterpret_cast<float4*>(&to->y);
  const unsigned other = kForm == StoreForm::kRankOutside ? 2 : rank ^ 1;
  serrate::store_async(other, to, {static_cast<float>(i), 0, 1, 2}, full);  // bug: values
  if (kForm == StoreForm::kReceiverEnds && rank == 0) return;
  if (kForm != StoreForm::kNoWait) serrate::mbarrier_wait(full, 0);  // bug: wait
  result[blockIdx.x * 32 + i] = in[i];                               // bug: values
  cluster_sync();
}

TEST_F(PlantedClusterCopy, Stores) {
  constexpr std::size_t kBytes = 32 * sizeof(float4) + 8;
  expect_nothing(run_pairs(exchange_values<StoreForm::kCorrect>, kBytes));
  const auto expect = [&](void (*kernel)(float4*), Kind kind, const std::string& name) {
    expect_among(run_pairs(kernel, kBytes), kind, kFile, name);
  };
  expect(exchange_values<StoreForm::kNoWait>, Kind::kSharedRace, "values");
  expect(exchange_values<StoreForm::kExpectsHalf>, Kind::kSharedRace, "values");
  expect(exchange_values<StoreForm::kExpectsMore>, Kind::kDeadlock, "wait");
  expect(exchange_values<StoreForm::kSamePlace>, Kind::kSharedRace, "values");
  expect(exchange_values<StoreForm::kReceiverEnds>, Kind::kNotOrdered, "values");
  expect(exchange_values<StoreForm::kMisaligned>, Kind::kBadInstruction, "values");
  expect(exchange_values<StoreForm::kRankOutside>, Kind::kBadInstruction, "values");
  EXPECT_FALSE(run_pairs(exchange_values<StoreForm::kNotBegun>, kBytes).empty());
}

// Each of two blocks brings one of two boxes to both, and then another one to the same place.
enum class LoadForm {
  kCorrect,
  kNoWait,
  kOverwrites,
  kOneExpectsLess,
  kOneExpectsMore,
  kNoProxyFence,
  kReceiverEnds,
  kRankOutside,
};
template <LoadForm kForm>
__global__ void load_for_both(const __grid_constant__ CUtensorMap map, float4* result) {
  constexpr unsigned kBox = 8;                   // float4
  auto* in = serrate::dynamic_shared<float4>();  // [2, kBox]
  auto* const full = reinterpret_cast<Mbarrier*>(in + 2 * kBox);
  const unsigned i = threadIdx.x, rank = cluster_rank();
  const int coordinates[5] = {0, static_cast<int>(rank), 0, 0, 0};
  if (kForm == LoadForm::kNoProxyFence && i < 2 * kBox) in[i] = {};
  if (i == 0) {
    serrate::mbarrier_init(full, 1);
    serrate::fence_mbarrier_init();
  }
  for (unsigned round = 0; round < 2; ++round) {
    if (i == 0) {
      unsigned bytes = 2 * kBox * sizeof(float4);
      if (rank == 1 && kForm == LoadForm::kOneExpectsLess) bytes -= 16;
      if (rank == 1 && kForm == LoadForm::kOneExpectsMore) bytes += 16;
      serrate::mbarrier_arrive_expecting(full, bytes);
    }
    if (round == 0 || kForm != LoadForm::kOverwrites) cluster_sync();
    if (i == 0) {
      const unsigned blocks = kForm == LoadForm::kRankOutside ? 5 : 3;
      serrate::load_box_to(blocks, in + rank * kBox, &map, coordinates, full);  // bug: load
    }
    if (kForm == LoadForm::kReceiverEnds && rank == 0) return;
    if (kForm != LoadForm::kNoWait || round == 0) serrate::mbarrier_wait(full, round);  // bug: wait
    if (i < 2 * kBox) result[blockIdx.x * 32 + i] = in[i];                              // bug: load
  }
  cluster_sync();
}

TEST_F(PlantedClusterCopy, Loads) {
  constexpr std::size_t kBytes = 2 * 128 + 8;
  const Array<float> tensor(std::vector<float>(64, 1.5f));
  const CUtensorMap map = serrate::make_tensor_map<5>({.type = CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
                                                       .data = tensor.data(),
                                                       .sizes = {32, 2, 1, 1, 1},
                                                       .strides = {128, 256, 256, 256},
                                                       .box = {32, 1, 1, 1, 1}});
  reset_counters();
  expect_nothing(run_pairs(load_for_both<LoadForm::kCorrect>, kBytes, map));
  // Each box is read once for both blocks, in each round; each block has that of the other.
  const KernelCounters c = kernel_counters("load_for_both<(LoadForm)0>");
  EXPECT_EQ(c.global_read_sectors, 4u * 2 * 4);
  EXPECT_EQ(c.cluster_bytes, 4u * 2 * (128 + 8));
  const auto expect = [&](void (*kernel)(CUtensorMap, float4*), Kind kind,
                          const std::string& name) {
    expect_among(run_pairs(kernel, kBytes, map), kind, kFile, name);
  };
  expect(load_for_both<LoadForm::kNoWait>, Kind::kSharedRace, "load");
  expect(load_for_both<LoadForm::kOverwrites>, Kind::kSharedRace, "load");
  expect(load_for_both<LoadForm::kOneExpectsLess>, Kind::kDeadlock, "wait");
  expect(load_for_both<LoadForm::kOneExpectsMore>, Kind::kDeadlock, "wait");
  expect(load_for_both<LoadForm::kNoProxyFence>, Kind::kProxy, "load");
  expect(load_for_both<LoadForm::kReceiverEnds>, Kind::kNotOrdered, "load");
  expect(load_for_both<LoadForm::kRankOutside>, Kind::kBadInstruction, "load");
}

}  // namespace
}  // namespace simt
