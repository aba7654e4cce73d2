#pragma once

#include <algorithm>

#include "kernels/attention/cuda/tile_list.cuh"
#include "kernels/attention/cuda/warp_task.cuh"
#include "kernels/attention/cuda/wgmma/tiles.cuh"
#include "kernels/attention/cuda/work_list.h"
#include "kernels/cuda/cluster.cuh"
#include "kernels/cuda/primitives.cuh"

// What a block of wgmma/backward_resident.cu has in shared memory, and what it sums over queries.
namespace serrate::resident_wgmma {

inline constexpr int kGroupWarps = 4, kGroups = 2, kNumWarps = kGroups * kGroupWarps;
inline constexpr int kGroupThreads = kGroupWarps * kLanes, kThreads = kGroups * kGroupThreads;
// Keys that go by at a time, and buffers of them.
inline constexpr int kKeys = 32, kSlots = 2;
inline constexpr int kKeyBlocks = kKeys / 8;  // of a fragment
// Tiles of queries.
template <int kDim>
inline constexpr int kTiles = resident_rows_of_wgmma(kDim) / kMmaTile;

struct KeyBarriers;

// Dynamic shared memory.
template <int kDim>
struct ResidentTiles {
  static constexpr int kScoreBytes = kMmaTile * kKeys * 2, kKeyBytes = kKeys * kDim * 2;
  static constexpr int kTileBytesOfAll =
      2 * kTiles<kDim> * (kTileBytes<kDim> + kScoreBytes) + 2 * kSlots * kKeyBytes;
  static constexpr int kBarrierBytes = 64, kBytes = kTileBytesOfAll + kBarrierBytes;
  unsigned char* data;

  __device__ unsigned char* q(int tile) const { return data + tile * kTileBytes<kDim>; }
  __device__ unsigned char* d_out(int tile) const { return q(kTiles<kDim> + tile); }
  // Of a tile of queries and a block of keys: rows of 64 bytes.
  __device__ unsigned char* weights(int tile) const {
    return q(2 * kTiles<kDim>) + tile * kScoreBytes;
  }
  __device__ unsigned char* d_scores(int tile) const { return weights(kTiles<kDim> + tile); }
  __device__ unsigned char* k(unsigned n) const {
    return weights(2 * kTiles<kDim>) + n % kSlots * kKeyBytes;
  }
  __device__ unsigned char* v(unsigned n) const { return k(n) + kSlots * kKeyBytes; }
  __device__ KeyBarriers& barriers() const {
    return *reinterpret_cast<KeyBarriers*>(data + kTileBytesOfAll);
  }
};

#ifdef SERRATE_WGMMA

// Where the other block of a cluster reaches them.
struct KeyBarriers {
  Mbarrier full[kSlots];          // keys and values have come
  Mbarrier ready, sent[kGroups];  // hand_over() says for what
  alignas(16) float4 token;       // comes with `ready`; nobody reads it
};

template <int kDim>
struct SharedState {
  static_assert(sizeof(KeyBarriers) <= ResidentTiles<kDim>::kBarrierBytes);
  static constexpr int kRows = kTiles<kDim> * kMmaTile;
  Mbarrier queries;
  WarpTask task;
  TilePair tiles[kTiles<kDim>];
  TileList<kRows / kWarpRows> list;
  KeyRanges ranges[kRows];
  QuerySums sums[kRows];
};

// Columns of d_v and d_k of a block of keys, as a group sums them: the first one d_v, the other
// d_k.
template <int kDim, class Half, int kBlocks>
struct KeyColumns {
  // Panels of 64 columns that each of kBlocks blocks has, and takes at once, as many as registers
  // allow beside d_q; of a lane, columns g and g + 8 of the warp's 16, and keys.
  static constexpr int kPanels = kDim / kPanelColumns / kBlocks;
  static constexpr int kPanelsAtOnce = kPanels == 1 ? 1 : 2;
  static_assert(kBlocks == 1 || kPanelsAtOnce == kPanels);  // there is one place for what is sent
  using Sums = Fragment<kKeyBlocks>[kPanelsAtOnce];
  ResidentTiles<kDim> tiles;
  int warp, group = warp / kGroupWarps;

  // Where they go.
  __device__ unsigned char* place(unsigned n) const { return group == 0 ? tiles.v(n) : tiles.k(n); }

  // Columns of d_v or d_k of a block of keys, from a panel on: the transpose of d_out times
  // weights, or of queries times gradients of scores, over the tiles of queries that see the keys.
  __device__ void sum(unsigned seen, int panel, Sums& sums) const {
#pragma unroll 1
    for (unsigned left = seen; left != 0; left &= left - 1) {
      const int tile = __ffs(static_cast<int>(left)) - 1;
      const bool is_v = group == 0;
      const std::uint64_t a =
          descriptor_of((is_v ? tiles.d_out(tile) : tiles.q(tile)) + panel * kPanelBytes, 0);
      const std::uint64_t b =
          descriptor_of(is_v ? tiles.weights(tile) : tiles.d_scores(tile), 0, true);
#pragma unroll
      for (auto& of_panel : sums) wgmma_keep(accumulators(of_panel));
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < kMmaTile / 16; ++k) {
#pragma unroll
        for (int m = 0; m < kPanelsAtOnce; ++m) {
          wgmma<kTypeOf<Half>, kKeys, WgmmaMajor::kRows, WgmmaMajor::kRows>(
              accumulators(sums[m]), advance(a, m * kPanelBytes + k * 16 * kRowBytes),
              advance(b, k * 16 * kKeys * 2), WgmmaScale::kAdd);
        }
      }
      wgmma_commit();
      wgmma_wait<0>();
#pragma unroll
      for (auto& of_panel : sums) wgmma_keep(accumulators(of_panel));
    }
  }

  // These as rows of keys in shared memory. Two lanes whose columns are neighbours hand over one
  // key each.
  __device__ void stage(float scale, int panel, const Sums& sums,
                        PanelRows<Half, kKeys> rows) const {
    const int lane = lane_index(), g = lane / 4, q = lane % 4, odd = g % 2;
#pragma unroll
    for (int m = 0; m < kPanelsAtOnce; ++m) {
#pragma unroll
      for (int n = 0; n < kKeyBlocks; ++n) {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          const auto& block = sums[m][n];
          const std::uint32_t own = Mma<Half>::pack(scale * block[2 * r], scale * block[2 * r + 1]);
          const std::uint32_t other = __shfl_xor_sync(~0u, own, 4);
          const std::uint32_t columns =
              odd ? __byte_perm(other, own, 0x7632) : __byte_perm(own, other, 0x5410);
          const int chunk = (panel + m) * kPanelColumns / 8 + warp % kGroupWarps * 2 + r;
          reinterpret_cast<std::uint32_t*>(rows.at(8 * n + 2 * q + odd, chunk))[g / 2] = columns;
        }
      }
    }
  }

  // Calls f(four sums of a thread, where they have a place of their own).
  template <typename F>
  __device__ void for_each_four(unsigned n, Sums& sums, F&& f) const {
    float4* const of_thread = reinterpret_cast<float4*>(place(n)) + thread_index() % kGroupThreads;
#pragma unroll
    for (int m = 0; m < kPanelsAtOnce; ++m) {
#pragma unroll
      for (int i = 0; i < kKeyBlocks; ++i) {
        f(sums[m][i], of_thread + (m * kKeyBlocks + i) * kGroupThreads);
      }
    }
  }
  // Of the columns of another block to there.
  __device__ void send(int block, unsigned n, Sums& sums) const {
    for_each_four(n, sums, [&](float(&own)[4], float4* there) {
      store_async(block, there, {own[0], own[1], own[2], own[3]}, &tiles.barriers().sent[group]);
    });
  }
  // sums += what came so, which makes way for them.
  __device__ void add_sent(unsigned n, Sums& sums) const {
    mbarrier_wait_cluster(&tiles.barriers().sent[group], n % 2);
    for_each_four(n, sums, [&](float(&own)[4], const float4* here) {
      const float4 other = *here;
      own[0] += other.x, own[1] += other.y, own[2] += other.z, own[3] += other.w;
    });
    named_barrier_sync(1 + group, kGroupThreads);
  }
};

#endif

}  // namespace serrate::resident_wgmma
