// Clusters against the PTX manual (PTX ISA 9.1), on a GPU and on the simulated device.
#include "kernels/cuda/cluster.cuh"

#include <gtest/gtest.h>

#include <vector>

#include "kernels/cuda/bulk_copy.cuh"
#include "kernels/cuda/primitives.cuh"
#include "kernels/cuda/tensor_map.h"
#include "serrate/buffer.h"
#include "serrate/error.h"
#include "src/core/launch.cuh"

namespace serrate {
namespace {

class ClusterTest : public testing::Test {
 protected:
  const Stream stream{Device::cuda(0)};
};

// 10.16 and 10.17: %cluster_ctarank and %cluster_nctarank; clusters are of consecutive blocks in x.
__global__ void tell_ranks(unsigned* ranks, unsigned* sizes) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  const unsigned block = blockIdx.x + gridDim.x * blockIdx.y;
  ranks[block] = cluster_rank();
  sizes[block] = cluster_size();
#endif
}

TEST_F(ClusterTest, Ranks) {
  for (const unsigned size : {1u, 2u, 4u, 8u}) {
    Buffer<unsigned> ranks(16, stream), sizes(16, stream);
    launch_clusters(size, tell_ranks, dim3(8, 2), 1, 0, stream, ranks.device_data(),
                    sizes.device_data());
    const std::vector<unsigned> rank = ranks.to_host(stream);
    for (unsigned b = 0; b < 16; ++b) EXPECT_EQ(rank[b], b % size);
    EXPECT_EQ(sizes.to_host(stream), std::vector<unsigned>(16, size));
  }
}

TEST_F(ClusterTest, RefusesSizes) {
  Buffer<unsigned> none(16, stream);
  EXPECT_THROW(
      launch_clusters(3, tell_ranks, 8, 1, 0, stream, none.device_data(), none.device_data()),
      Error);
  EXPECT_THROW(
      launch_clusters(16, tell_ranks, 16, 1, 0, stream, none.device_data(), none.device_data()),
      Error);
  cudaGetLastError();
}

// 9.7.9.23, 9.7.13.3: loads, stores and atomics by mapped addresses. Each block stores to the next
// one, takes from the one before, and adds to the first.
__global__ void go_round(float4* stored, float* taken, int* sum) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  auto* in = dynamic_shared<float4>();                  // [32], from the block before
  auto* const own = reinterpret_cast<float*>(in + 32);  // [32]
  auto* const total = reinterpret_cast<int*>(own + 32);
  const unsigned i = threadIdx.x, rank = cluster_rank(), size = cluster_size();
  own[i] = static_cast<float>(100 * rank + i);
  if (i == 0) *total = 0;
  cluster_sync();
  const float value = static_cast<float>(rank);
  map_shared(in, (rank + 1) % size)[i] = {value, value + 0.25f, static_cast<float>(i), -1};
  taken[blockIdx.x * 32 + i] = map_shared(own, (rank + size - 1) % size)[31 - i];
  atomicAdd(map_shared(total, 0), static_cast<int>(rank + 1));
  cluster_sync();
  stored[blockIdx.x * 32 + i] = in[i];
  if (rank == 0 && i == 0) sum[blockIdx.x / size] = *total;
#endif
}

TEST_F(ClusterTest, LoadsStoresAndAtomics) {
  constexpr unsigned kBlocks = 8;
  for (const unsigned size : {2u, 4u, 8u}) {
    Buffer<float4> stored(kBlocks * 32, stream);
    Buffer<float> taken(kBlocks * 32, stream);
    Buffer<int> sum(kBlocks / size, stream);
    launch_clusters(size, go_round, kBlocks, 32, 32 * 20 + 4, stream, stored.device_data(),
                    taken.device_data(), sum.device_data());
    const std::vector<float4> in = stored.to_host(stream);
    const std::vector<float> out = taken.to_host(stream);
    for (unsigned b = 0; b < kBlocks; ++b) {
      const unsigned before = (b % size + size - 1) % size;
      for (unsigned i = 0; i < 32; ++i) {
        const float4 x = in[b * 32 + i];
        EXPECT_EQ(x.x, before) << b;
        EXPECT_EQ(x.y, before + 0.25f);
        EXPECT_EQ(x.z, i);
        EXPECT_EQ(x.w, -1);
        EXPECT_EQ(out[b * 32 + i], 100 * before + 31 - i);
      }
    }
    // 32 threads add 1 to `size`.
    EXPECT_EQ(sum.to_host(stream),
              std::vector<int>(kBlocks / size, static_cast<int>(16 * size * (size + 1))));
  }
}

// 9.7.13.3: the wait is for all threads of the cluster that have not exited, and makes visible what
// they did before they arrived; in between a thread does what it likes.
__global__ void arrive_early(int* seen) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  auto* values = dynamic_shared<int>();  // [2, 32]
  const unsigned i = threadIdx.x % 32, rank = cluster_rank();
  if (threadIdx.x >= 32) return;
  for (int round = 0; round < 5; ++round) {
    values[round % 2 * 32 + i] = 10 * round + static_cast<int>(rank);
    cluster_arrive();
    seen[(blockIdx.x * 5 + round) * 32 + i] = static_cast<int>(i);
    cluster_wait();
    seen[(blockIdx.x * 5 + round) * 32 + i] += map_shared(values, rank ^ 1)[round % 2 * 32 + i];
  }
  cluster_sync();
#endif
}

TEST_F(ClusterTest, ArriveAndWait) {
  Buffer<int> seen(4 * 5 * 32, stream);
  launch_clusters(2, arrive_early, 4, 64, 64 * sizeof(int), stream, seen.device_data());
  const std::vector<int> host = seen.to_host(stream);
  for (int b = 0; b < 4; ++b) {
    for (int round = 0; round < 5; ++round) {
      for (int i = 0; i < 32; ++i) {
        EXPECT_EQ(host[(b * 5 + round) * 32 + i], 10 * round + (b % 2 ^ 1) + i);
      }
    }
  }
}

// 9.7.13.15.13 and .16: arrivals at an mbarrier of another block, and a wait of the cluster's
// scope. All other blocks leave a value with the first one, round by round, which answers them.
__global__ void gather(int* sums, int rounds) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  auto* full = dynamic_shared<Mbarrier>();
  Mbarrier* const empty = full + 1;
  int* const values = reinterpret_cast<int*>(full + 2);  // [size]
  const unsigned rank = cluster_rank(), size = cluster_size();
  if (threadIdx.x == 0) {
    mbarrier_init(full, size - 1);
    mbarrier_init(empty, 1);
  }
  cluster_sync();
  if (threadIdx.x == 0) {
    for (int round = 0; round < rounds; ++round) {
      const unsigned parity = static_cast<unsigned>(round) % 2;
      if (rank == 0) {
        mbarrier_wait_cluster(full, parity);
        int sum = 0;
        for (unsigned r = 1; r < size; ++r) sum += values[r];
        sums[blockIdx.x / size * rounds + round] = sum;
        for (unsigned r = 1; r < size; ++r) mbarrier_arrive_at(empty, r);
      } else {
        if (round > 0) mbarrier_wait_cluster(empty, parity ^ 1);
        map_shared(values, 0)[rank] = 1000 * round + static_cast<int>(rank);
        mbarrier_arrive_at(full, 0);
      }
    }
    if (rank > 0) mbarrier_wait_cluster(empty, static_cast<unsigned>(rounds - 1) % 2);
  }
  cluster_sync();
#endif
}

TEST_F(ClusterTest, MbarriersOfOtherBlocks) {
  constexpr int kRounds = 4;
  Buffer<int> sums(2 * kRounds, stream);
  launch_clusters(4, gather, 8, 32, 16 + 4 * sizeof(int), stream, sums.device_data(), kRounds);
  const std::vector<int> host = sums.to_host(stream);
  for (int i = 0; i < 2 * kRounds; ++i) EXPECT_EQ(host[i], 3 * 1000 * (i % kRounds) + 1 + 2 + 3);
}

// 9.7.9.25.4.1: bulk copies to the next block, which complete at its mbarrier.
__global__ void pass_on(const float* from, float* to, int rounds) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  constexpr unsigned kTile = 64, kBytes = kTile * sizeof(float);
  auto* tiles = dynamic_shared<float>();  // [2, kTile]: of this round and of the next one
  auto* const full = reinterpret_cast<Mbarrier*>(tiles + 2 * kTile);
  const unsigned rank = cluster_rank(), next = (rank + 1) % cluster_size();
  if (threadIdx.x == 0) {
    mbarrier_init(full, 1);
    fence_mbarrier_init();
    mbarrier_arrive_expecting(full, kBytes);
  }
  tiles[threadIdx.x] = from[blockIdx.x * kTile + threadIdx.x];
  fence_async_proxy_shared();
  cluster_sync();
  for (unsigned round = 0; round < static_cast<unsigned>(rounds); ++round) {
    if (threadIdx.x == 0) {
      copy_bulk_to(next, tiles + (round + 1) % 2 * kTile, tiles + round % 2 * kTile, kBytes, full);
    }
    mbarrier_wait(full, round % 2);
    if (threadIdx.x == 0 && round + 1 < static_cast<unsigned>(rounds)) {
      mbarrier_arrive_expecting(full, kBytes);
    }
    cluster_sync();
  }
  to[blockIdx.x * kTile + threadIdx.x] = tiles[rounds % 2 * kTile + threadIdx.x];
#endif
}

TEST_F(ClusterTest, BulkCopies) {
  std::vector<float> host(8 * 64);
  for (std::size_t i = 0; i < host.size(); ++i) host[i] = static_cast<float>(i) + 0.5f;
  const Buffer<float> from(host, stream);
  for (const int rounds : {1, 3}) {
    Buffer<float> to(host.size(), stream);
    launch_clusters(4, pass_on, 8, 64, 2 * 64 * sizeof(float) + 8, stream, from.device_data(),
                    to.device_data(), rounds);
    const std::vector<float> passed = to.to_host(stream);
    for (int b = 0; b < 8; ++b) {
      const int source = b / 4 * 4 + (b % 4 + 4 - rounds) % 4;
      for (int i = 0; i < 64; ++i) EXPECT_EQ(passed[b * 64 + i], host[source * 64 + i]) << b;
    }
  }
}

// 9.7.9, st.async: stores to the next block, which complete at its mbarrier.
__global__ void store_to_next(float4* to, int rounds) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  auto* in = dynamic_shared<float4>();  // [2, 64]
  auto* const full = reinterpret_cast<Mbarrier*>(in + 2 * 64);
  const unsigned i = threadIdx.x, rank = cluster_rank(), next = (rank + 1) % cluster_size();
  if (i == 0) {
    mbarrier_init(full, 1);
    fence_mbarrier_init();
  }
  cluster_sync();
  float4 value = {static_cast<float>(blockIdx.x), static_cast<float>(i), 0.5f, -1};
  for (unsigned round = 0; round < static_cast<unsigned>(rounds); ++round) {
    if (i == 0) mbarrier_arrive_expecting(full, 64 * sizeof(float4));
    store_async(next, in + round % 2 * 64 + 63 - i, value, full);
    mbarrier_wait_cluster(full, round % 2);
    value = in[round % 2 * 64 + i];
    cluster_sync();
  }
  to[blockIdx.x * 64 + i] = value;
#endif
}

TEST_F(ClusterTest, AsynchronousStores) {
  for (const int rounds : {1, 3}) {
    Buffer<float4> to(8 * 64, stream);
    launch_clusters(4, store_to_next, 8, 64, 2 * 64 * sizeof(float4) + 8, stream, to.device_data(),
                    rounds);
    const std::vector<float4> passed = to.to_host(stream);
    for (int b = 0; b < 8; ++b) {
      for (int i = 0; i < 64; ++i) {
        const float4 x = passed[b * 64 + i];
        EXPECT_EQ(x.x, b / 4 * 4 + (b % 4 + 4 - rounds) % 4) << b;
        EXPECT_EQ(x.y, 63 - i);
        EXPECT_EQ(x.z, 0.5f);
        EXPECT_EQ(x.w, -1);
      }
    }
  }
}

// 9.7.9.25.5.2, .multicast::cluster: block r of four brings box r to itself and to the next one, to
// the same place, where the mbarrier of each counts it.
__global__ void load_for_two(const __grid_constant__ CUtensorMap map, float* to) {
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  constexpr unsigned kBox = 4 * 8, kBytes = kBox * sizeof(float);
  auto* in = dynamic_shared<float>();  // [4, kBox]
  auto* const full = reinterpret_cast<Mbarrier*>(in + 4 * kBox);
  const unsigned rank = cluster_rank();
  for (unsigned i = threadIdx.x; i < 4 * kBox; i += blockDim.x) in[i] = -1;
  fence_async_proxy();
  if (threadIdx.x == 0) {
    mbarrier_init(full, 1);
    fence_mbarrier_init();
    mbarrier_arrive_expecting(full, 2 * kBytes);
  }
  cluster_sync();
  if (threadIdx.x == 0) {
    const int coordinates[5] = {0, 0, static_cast<int>(4 * rank), 0, 0};
    load_box_to(1u << rank | 1u << (rank + 1) % 4, in + rank * kBox, &map, coordinates, full);
  }
  mbarrier_wait(full, 0);
  for (unsigned i = threadIdx.x; i < 4 * kBox; i += blockDim.x)
    to[blockIdx.x * 4 * kBox + i] = in[i];
  cluster_sync();
#endif
}

TEST_F(ClusterTest, BoxesForSeveralBlocks) {
  constexpr int kRows = 14;  // of 16 that the boxes have
  std::vector<float> host(kRows * 8);
  for (std::size_t i = 0; i < host.size(); ++i) host[i] = static_cast<float>(i) + 0.5f;
  const Buffer<float> tensor(host, stream);
  const CUtensorMap map = make_tensor_map<5>({.type = CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
                                              .data = tensor.device_data(),
                                              .sizes = {8, 1, kRows, 1, 1},
                                              .strides = {32, 32, 32 * kRows, 32 * kRows},
                                              .box = {8, 1, 4, 1, 1}});
  Buffer<float> to(8 * 4 * 32, stream);
  launch_clusters(4, load_for_two, 8, 32, 4 * 32 * sizeof(float) + 8, stream, map,
                  to.device_data());
  const std::vector<float> boxes = to.to_host(stream);
  for (int b = 0; b < 8; ++b) {
    for (int box = 0; box < 4; ++box) {
      const bool comes = box == b % 4 || box == (b + 3) % 4;
      for (int i = 0; i < 32; ++i) {
        const int at = box * 32 + i;
        const float in_tensor = at < kRows * 8 ? host[at] : 0;
        EXPECT_EQ(boxes[(b * 4 + box) * 32 + i], comes ? in_tensor : -1) << b << ", box " << box;
      }
    }
  }
}

}  // namespace
}  // namespace serrate
