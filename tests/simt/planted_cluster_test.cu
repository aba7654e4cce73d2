// Planted bugs: clusters of blocks and each other's shared memory.
#include "kernels/cuda/cluster.cuh"
#include "kernels/cuda/primitives.cuh"
#include "src/core/launch.cuh"
#include "tests/simt/planted_bug.h"
#include "tests/support/simt/counters.h"

namespace simt {
namespace {

using serrate::cluster_arrive;
using serrate::cluster_rank;
using serrate::cluster_sync;
using serrate::cluster_wait;
using serrate::map_shared;
using serrate::Mbarrier;

const std::string kFile = "planted_cluster_test.cu";

class PlantedCluster : public testing::Test {
 protected:
  /// What is found in a grid of four blocks of 32 threads, in clusters of two.
  template <typename T>
  std::vector<Finding> run_pairs(void (*kernel)(T*), std::size_t shared_bytes) {
    const Array<T> result(4 * 32);
    serrate::launch_clusters(2, kernel, 4, 32, shared_bytes, stream_, result.data());
    return found();
  }
  void expect_nothing(const std::vector<Finding>& findings) {
    for (const Finding& finding : findings) ADD_FAILURE() << "false alarm: " << finding.text;
  }

  const serrate::Stream stream_{serrate::Device::cuda(0)};
};

// Two blocks read what the other one wrote to its shared memory.
enum class ReadForm {
  kCorrect,
  kNoBarrierBeforeRead,
  kNoBarrierBeforeEnd,
  kNoBarrierBeforeWrite,
  kTheSameWord,
  kRankOutside,
  kOutOfBounds,
  kVariable,
  kNotWritten,
  kByLdmatrix,
};
template <ReadForm kForm>
__global__ void read_neighbour(float* sums) {
  __shared__ float variable;
  auto* own = serrate::dynamic_shared<float>();  // [3, 32]
  const unsigned i = threadIdx.x, neighbour = cluster_rank() ^ 1;
  if (kForm != ReadForm::kNoBarrierBeforeWrite) cluster_sync();
  map_shared(own, neighbour)[32 + i] = 1;                          // bug: first write
  if (kForm == ReadForm::kTheSameWord) map_shared(own, 0)[i] = 2;  // bug: word
  own[i] = static_cast<float>(i);                                  // bug: word
  if (kForm == ReadForm::kNoBarrierBeforeRead) {
    __syncthreads();
  } else {
    cluster_sync();
  }
  const float* there = own;
  if (kForm == ReadForm::kVariable) there = &variable;
  there = map_shared(there, kForm == ReadForm::kRankOutside ? 2 : neighbour);  // bug: map
  float sum = there[31 - i] + there[32 + i];                                   // bug: word
  if (kForm == ReadForm::kNotWritten) sum += there[64];                        // bug: read
  if (kForm == ReadForm::kOutOfBounds) sum += there[96];                       // bug: read
  if (kForm == ReadForm::kByLdmatrix) {
    std::uint32_t fragment[1];
    serrate::load_matrices(fragment, there);  // bug: read
    sum += static_cast<float>(fragment[0]);
  }
  sums[blockIdx.x * 32 + i] = sum;
  if (kForm != ReadForm::kNoBarrierBeforeEnd) cluster_sync();
}

TEST_F(PlantedCluster, Reads) {
  constexpr std::size_t kBytes = 96 * sizeof(float);
  expect_nothing(run_pairs(read_neighbour<ReadForm::kCorrect>, kBytes));
  const auto expect = [&](void (*kernel)(float*), Kind kind, const std::string& name) {
    expect_among(run_pairs(kernel, kBytes), kind, kFile, name);
  };
  expect(read_neighbour<ReadForm::kNoBarrierBeforeRead>, Kind::kSharedRace, "word");
  expect(read_neighbour<ReadForm::kNoBarrierBeforeWrite>, Kind::kNotOrdered, "first write");
  expect(read_neighbour<ReadForm::kNoBarrierBeforeEnd>, Kind::kNotOrdered, "word");
  expect(read_neighbour<ReadForm::kTheSameWord>, Kind::kSharedRace, "word");
  expect(read_neighbour<ReadForm::kRankOutside>, Kind::kBadInstruction, "map");
  expect(read_neighbour<ReadForm::kVariable>, Kind::kBadInstruction, "map");
  expect(read_neighbour<ReadForm::kOutOfBounds>, Kind::kOutOfBounds, "read");
  expect(read_neighbour<ReadForm::kNotWritten>, Kind::kNotWritten, "read");
  expect(read_neighbour<ReadForm::kByLdmatrix>, Kind::kBadInstruction, "read");
}

// A block that ends before its neighbour reads is told by the order, not by chance; the finding is
// the reader's, with the block that ended.
TEST_F(PlantedCluster, EndBeforeRead) {
  const auto findings =
      run_pairs(read_neighbour<ReadForm::kNoBarrierBeforeEnd>, 96 * sizeof(float));
  ASSERT_EQ(findings.size(), 1u);
  EXPECT_TRUE(findings[0].kernel.starts_with("read_neighbour<")) << findings[0].text;
  EXPECT_TRUE(lines_of_bug(kFile, "word").contains(findings[0].place.line)) << findings[0].text;
  const unsigned other = findings[0].block.x ^ 1;
  EXPECT_NE(findings[0].text.find("of block (" + std::to_string(other) + ", 0, 0), "),
            std::string::npos)
      << findings[0].text;
}

// The barrier of the cluster.
enum class BarrierForm {
  kCorrect,
  kExits,
  kArrivesTwice,
  kWaitsOnly,
  kOneThreadElsewhere,
  kWriteBehindArrive,
};
template <BarrierForm kForm>
__global__ void meet(int* result) {
  auto* value = serrate::dynamic_shared<int>();  // [32]
  const unsigned i = threadIdx.x;
  if (kForm == BarrierForm::kExits && i >= 16) return;
  if (kForm == BarrierForm::kOneThreadElsewhere && blockIdx.x == 1 && i == 5) {
    __syncthreads();  // bug: meet
  }
  value[i] = 1;
  if (kForm == BarrierForm::kArrivesTwice) cluster_arrive();
  if (kForm != BarrierForm::kWaitsOnly) cluster_arrive();                  // bug: meet
  if (kForm == BarrierForm::kWriteBehindArrive) value[i] = 2;              // bug: behind
  cluster_wait();                                                          // bug: meet
  result[blockIdx.x * 32 + i] = map_shared(value, cluster_rank() ^ 1)[i];  // bug: behind
  cluster_sync();
}

TEST_F(PlantedCluster, Barrier) {
  constexpr std::size_t kBytes = 32 * sizeof(int);
  expect_nothing(run_pairs(meet<BarrierForm::kCorrect>, kBytes));
  expect_nothing(run_pairs(meet<BarrierForm::kExits>, kBytes));
  const auto expect = [&](void (*kernel)(int*), Kind kind, const std::string& name) {
    expect_among(run_pairs(kernel, kBytes), kind, kFile, name);
  };
  expect(meet<BarrierForm::kArrivesTwice>, Kind::kBarrierDivergence, "meet");
  expect(meet<BarrierForm::kWaitsOnly>, Kind::kBarrierDivergence, "meet");
  expect(meet<BarrierForm::kOneThreadElsewhere>, Kind::kBarrierDivergence, "meet");
  expect(meet<BarrierForm::kWriteBehindArrive>, Kind::kSharedRace, "behind");
}

// Block 1 leaves values with block 0 and arrives at its mbarrier.
enum class ArriveForm {
  kCorrect,
  kOwnMbarrier,
  kArrivesAsOwn,
  kWaitsThere,
  kWaitsForBlock,
  kInitNotOrdered,
  kPlainAccess,
};
template <ArriveForm kForm>
__global__ void leave_values(int* result) {
  auto* full = serrate::dynamic_shared<Mbarrier>();
  int* const values = reinterpret_cast<int*>(full + 1);  // [32]
  const unsigned i = threadIdx.x, rank = cluster_rank();
  if (kForm == ArriveForm::kInitNotOrdered) cluster_sync();
  if (i == 0) serrate::mbarrier_init(full, 32);
  if (kForm == ArriveForm::kInitNotOrdered) {
    __syncthreads();
  } else {
    cluster_sync();
  }
  if (rank == 1) {
    map_shared(values, 0)[i] = static_cast<int>(i);  // bug: values
    if (kForm == ArriveForm::kArrivesAsOwn) {
      serrate::mbarrier_arrive(map_shared(full, 0));  // bug: arrive
    } else if (kForm == ArriveForm::kPlainAccess) {
      map_shared(full, 0)->state = 0;  // bug: arrive
    } else {
      serrate::mbarrier_arrive_at(full, kForm == ArriveForm::kOwnMbarrier ? 1 : 0);  // bug: arrive
    }
    if (kForm == ArriveForm::kWaitsThere) serrate::mbarrier_wait(map_shared(full, 0), 0);  // bug: w
  } else {
    if (i == 0 && kForm == ArriveForm::kWaitsForBlock) {
      serrate::mbarrier_wait(full, 0);
    } else if (i == 0) {
      serrate::mbarrier_wait_cluster(full, 0);  // bug: wait
    }
    __syncthreads();
    result[blockIdx.x * 32 + i] = values[31 - i];  // bug: values
  }
  cluster_sync();
}

TEST_F(PlantedCluster, Mbarriers) {
  constexpr std::size_t kBytes = 8 + 32 * sizeof(int);
  expect_nothing(run_pairs(leave_values<ArriveForm::kCorrect>, kBytes));
  const auto expect = [&](void (*kernel)(int*), Kind kind, const std::string& name) {
    expect_among(run_pairs(kernel, kBytes), kind, kFile, name);
  };
  expect(leave_values<ArriveForm::kOwnMbarrier>, Kind::kDeadlock, "wait");
  expect(leave_values<ArriveForm::kArrivesAsOwn>, Kind::kMbarrier, "arrive");
  expect(leave_values<ArriveForm::kPlainAccess>, Kind::kMbarrier, "arrive");
  expect(leave_values<ArriveForm::kWaitsThere>, Kind::kMbarrier, "w");
  expect(leave_values<ArriveForm::kWaitsForBlock>, Kind::kSharedRace, "values");
  // Whoever comes first: the mbarrier is not there yet, or nothing orders who made it.
  const auto findings = run_pairs(leave_values<ArriveForm::kInitNotOrdered>, kBytes);
  EXPECT_FALSE(findings.empty());
  for (const Finding& finding : findings) {
    EXPECT_TRUE(finding.kind == Kind::kMbarrier || finding.kind == Kind::kSharedRace)
        << finding.text;
  }
}

// Block 1 sends two halves of a tile to block 0.
enum class CopyForm {
  kCorrect,
  kExpectsHalf,
  kExpectsMore,
  kNoFence,
  kNoWait,
  kSourceWritten,
  kSenderEnds,
  kMisaligned,
  kSourceElsewhere,
};
template <CopyForm kForm>
__global__ void send_tile(float* result) {
  constexpr unsigned kHalf = 16 * sizeof(float);
  auto* tile = serrate::dynamic_shared<float>();  // [32]
  auto* const full = reinterpret_cast<Mbarrier*>(tile + 32);
  const unsigned i = threadIdx.x, rank = cluster_rank();
  if (i == 0) {
    serrate::mbarrier_init(full, 1);
    serrate::fence_mbarrier_init();
    const unsigned more = kForm == CopyForm::kExpectsMore ? 16 : 0;
    if (rank == 0) {
      serrate::mbarrier_arrive_expecting(
          full, kForm == CopyForm::kExpectsHalf ? kHalf : 2 * kHalf + more);
    }
  }
  if (rank == 1) tile[i] = static_cast<float>(i);  // bug: source
  if (kForm != CopyForm::kNoFence) serrate::fence_async_proxy_shared();
  cluster_sync();
  if (rank == 1) {
    const float* from = tile;
    if (kForm == CopyForm::kSourceElsewhere) from = map_shared(tile, 0);
    if (kForm == CopyForm::kMisaligned) ++from;
    if (i == 0) {
      serrate::copy_bulk_to(0, tile, from, kHalf, full);            // bug: send
      serrate::copy_bulk_to(0, tile + 16, from + 16, kHalf, full);  // bug: send
    }
    if (kForm == CopyForm::kSourceWritten) tile[i] = 0;  // bug: send
    if (kForm == CopyForm::kSenderEnds) return;
  } else {
    if (kForm != CopyForm::kNoWait) serrate::mbarrier_wait(full, 0);  // bug: wait
    result[blockIdx.x * 32 + i] = tile[i];                            // bug: send
  }
  cluster_sync();
}

TEST_F(PlantedCluster, Copies) {
  constexpr std::size_t kBytes = 8 + 32 * sizeof(float);
  expect_nothing(run_pairs(send_tile<CopyForm::kCorrect>, kBytes));
  const auto expect = [&](void (*kernel)(float*), Kind kind, const std::string& name) {
    expect_among(run_pairs(kernel, kBytes), kind, kFile, name);
  };
  expect(send_tile<CopyForm::kExpectsHalf>, Kind::kSharedRace, "send");
  expect(send_tile<CopyForm::kExpectsMore>, Kind::kDeadlock, "wait");
  expect(send_tile<CopyForm::kNoFence>, Kind::kProxy, "send");
  expect(send_tile<CopyForm::kNoWait>, Kind::kSharedRace, "send");
  expect(send_tile<CopyForm::kSourceWritten>, Kind::kSharedRace, "send");
  expect(send_tile<CopyForm::kSenderEnds>, Kind::kNotOrdered, "send");
  expect(send_tile<CopyForm::kMisaligned>, Kind::kBadInstruction, "send");
  expect(send_tile<CopyForm::kSourceElsewhere>, Kind::kBadInstruction, "send");
}

// What a thread wrote to another block's shared memory, copies see behind a fence of all memory.
template <bool kFencesAll>
__global__ void write_then_send(float* result) {
  auto* tile = serrate::dynamic_shared<float>();  // [2, 32]
  auto* const full = reinterpret_cast<Mbarrier*>(tile + 64);
  const unsigned i = threadIdx.x, rank = cluster_rank();
  if (i == 0) {
    serrate::mbarrier_init(full, 1);
    serrate::fence_mbarrier_init();
    serrate::mbarrier_arrive_expecting(full, 128);
  }
  cluster_sync();
  map_shared(tile, rank ^ 1)[i] = static_cast<float>(i);
  if (kFencesAll) {
    serrate::fence_async_proxy();
  } else {
    serrate::fence_async_proxy_shared();
  }
  cluster_sync();
  if (i == 0) serrate::copy_bulk_to(rank ^ 1, tile + 32, tile, 128, full);  // bug: fence
  serrate::mbarrier_wait_cluster(full, 0);
  result[blockIdx.x * 32 + i] = tile[32 + i];
  cluster_sync();
}

TEST_F(PlantedCluster, ProxyFenceOfOtherBlocks) {
  constexpr std::size_t kBytes = 8 + 64 * sizeof(float);
  expect_nothing(run_pairs(write_then_send<true>, kBytes));
  expect_among(run_pairs(write_then_send<false>, kBytes), Kind::kProxy, kFile, "fence");
}

// Shared memory of other blocks is counted apart.
TEST_F(PlantedCluster, Counters) {
  reset_counters();
  expect_nothing(run_pairs(write_then_send<true>, 8 + 64 * sizeof(float)));
  const KernelCounters c = kernel_counters("write_then_send<true>");
  EXPECT_EQ(c.blocks, 4u);
  // In each block a warp writes 128 bytes there, and a copy brings 128 and looks at the mbarrier.
  EXPECT_EQ(c.cluster_bytes, 4u * (128 + 128 + 8));
  EXPECT_EQ(c.cluster_sectors, 4u * (4 + 4 + 1));
  EXPECT_EQ(c.global_written_bytes, 4u * 128);
  EXPECT_EQ(c.shared_bank_conflicts, 0u);
}

}  // namespace
}  // namespace simt
