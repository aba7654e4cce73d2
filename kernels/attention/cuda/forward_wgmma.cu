// FlashAttention-3's forward (Shah et al. 2024) of long sequences on Hopper (sm_90a), for halves.
// A block takes 128 queries of a sequence in one head, and stays for one task after the other. Two
// warpgroups of 64 queries multiply by wgmma, in turn: one's products run while the other's scores
// become weights, and up to head_dim 128 those with the values of a tile while the next tile's
// scores do. A third warpgroup keeps them busy: three of its warps list the tiles that the mask
// leaves, one copies queries, keys and values to rings of buffers, all of which run ahead into the
// next task. The copies go by rows of a sequence: what is behind its end is neither read nor NaN.
#include "kernels/attention/cuda/launch_tiles.cuh"
#include "kernels/attention/cuda/mma_weights.cuh"
#include "kernels/attention/cuda/wgmma_feed.cuh"
#include "kernels/cuda/warpgroup.cuh"

namespace serrate {
namespace {

#ifdef SERRATE_WGMMA

// A group's queries as products take them: of 64 columns a warp has its 16 rows in registers, so
// that shared memory has to feed keys and values alone; for 128 there are too few.
template <int kDim, class Half>
struct Queries {
  static constexpr bool kInRegisters = kDim <= 64;
  std::uint32_t fragments[kInRegisters ? kDim / 16 : 1][4];
  unsigned char* tile;

  __device__ explicit Queries(unsigned char* queries) : tile(queries) {
    if constexpr (kInRegisters) {
      const SwizzledRows<kPanelColumns, Half> rows{reinterpret_cast<Half*>(tile)};
      const int lane = lane_index(), row = thread_index() / kLanes % kGroupWarps * kWarpRows;
#pragma unroll
      for (int k = 0; k < kDim / 16; ++k) {
        load_matrices(fragments[k], rows.at(row + lane % 16, 2 * k + lane / 16));
      }
    }
  }
};

// lane_index() where the compiler is not to compute ahead what depends on it: there are no
// registers to keep that in.
__device__ int lane_index_here() {
  return __shfl_sync(~0u, lane_index(), lane_index());
}

// Begins scores = 64 queries times the transpose of 64 keys.
template <int kDim, class Half>
__device__ void begin_scores(const Queries<kDim, Half>& queries, const unsigned char* keys,
                             Fragment<8>& scores) {
  const std::uint64_t a = descriptor_of(queries.tile, 0), b = descriptor_of(keys, 0);
  wgmma_keep(accumulators(scores));
  wgmma_fence();
#pragma unroll
  for (int k = 0; k < kDim / 16; ++k) {
    const auto scale = k == 0 ? WgmmaScale::kOverwrite : WgmmaScale::kAdd;
    const unsigned further = k / 4 * kPanelBytes + k % 4 * 32;
    if constexpr (Queries<kDim, Half>::kInRegisters) {
      wgmma<kTypeOf<Half>, kMmaTile>(accumulators(scores), queries.fragments[k],
                                     advance(b, further), scale);
    } else {
      wgmma<kTypeOf<Half>, kMmaTile>(accumulators(scores), advance(a, further), advance(b, further),
                                     scale);
    }
  }
  wgmma_commit();
}

// Begins sums += weights times 64 values.
template <int kDim, class Half>
__device__ void begin_sums(const LeftSide& weights, const unsigned char* values,
                           Fragment<kDim / 8>& sums) {
  const std::uint64_t b = descriptor_of(values, kPanelBytes);
  wgmma_keep(accumulators(sums));
  wgmma_fence();
#pragma unroll
  for (int k = 0; k < kMmaTile / 16; ++k) {
    wgmma<kTypeOf<Half>, kDim, WgmmaMajor::kRows>(accumulators(sums), weights[k],
                                                  advance(b, k * 16 * 128), WgmmaScale::kAdd);
  }
  wgmma_commit();
}

// One of the warps of the queries, and where it is in the rings.
template <int kDim, class Half, Extras kExtras>
struct QueryWarp {
  using List = TileList<kQueryWarps>;
  // Whether scores become weights while a product with the weights before is under way. At
  // head_dim 256 there are no registers for both; the products of the other group take longer.
  static constexpr bool kOverlaps = kDim <= 128;

  const AttentionView& args;
  SharedState<kDim>& state;
  Tiles<kDim> tiles;
  int warp, group = warp / kGroupWarps;

  // Named barriers of the group: of its warps, and for its turn to multiply. Both groups have a
  // turn for every tile.
  __device__ unsigned group_barrier() const { return 1 + group; }
  __device__ unsigned turn_barrier(int of_group) const { return 1 + kGroups + of_group; }
  __device__ void wait_for_turn() const {
    named_barrier_sync(turn_barrier(group), kQueryWarps * kLanes);
  }
  __device__ void pass_turn() const {
    named_barrier_arrive(turn_barrier(1 - group), kQueryWarps * kLanes);
  }

  __device__ void release(Mbarrier* empty) const {
    __syncwarp();
    if (lane_index() == 0) mbarrier_arrive(empty);
  }
  __device__ void release_keys(unsigned t) const {
    release(&state.keys.empty[t % kKeySlots<kDim>]);
  }
  __device__ void release_values(unsigned t) const {
    release(&state.values.empty[t % kKeySlots<kDim>]);
  }

  __device__ bool sees(const List& list, int tile) const {
    return tile < List::kTiles && list.is_seen(tile, group * kGroupWarps, kGroupWarps);
  }
  // The next listed tile, from `tile` on, that the group sees, and its number in the rings, t;
  // those of the other group alone are passed by.
  __device__ int next(const List& list, int tile, unsigned& t) const {
    for (tile = list.next(tile); tile < List::kTiles; tile = list.next(tile + 1), ++t) {
      if (sees(list, tile)) break;
      wait_for_turn();
      pass_turn();
      state.keys.wait_full(t);
      release_keys(t);
      state.values.wait_full(t);
      release_values(t);
    }
    return tile;
  }

  // Scores of a tile of keys become weights.
  __device__ void weigh_tile(const Part& part, int tile, Fragment<8>& scores,
                             OnlineSoftmax& softmax, float (&factors)[2]) const {
    const int first_key = (part.first_tile + tile) * kMmaTile;
    const LaneTile lane{
        static_cast<int>(part.at.first_query) + warp * kWarpRows + lane_index() / 4,
        part.ranges + warp * kWarpRows, first_key,
        static_cast<int>(std::min<std::int64_t>(part.at.num_keys - first_key, kMmaTile)),
        part.list.of_warp(tile, warp).is_full};
    weigh<kExtras, 8, false>(args, part.at, lane, scores, softmax, factors);
  }

  __device__ void finish_sums(unsigned t, Fragment<kDim / 8>& sums) const {
    wgmma_wait<0>();
    wgmma_keep(accumulators(sums));
    release_values(t);
  }

  // All tiles of part n; t is the number of its first one in the rings, and then of the next
  // part's.
  __device__ void attend(unsigned n, unsigned& t, Fragment<kDim / 8>& sums,
                         OnlineSoftmax& softmax) const {
    const Part& part = state.slots[n % kPartSlots];
    const List& list = part.list;
    int tile = next(list, 0, t);
    if (tile == List::kTiles) return;  // it may have no queries
    const Queries<kDim, Half> queries(tiles.queries(n, group));
    Fragment<8> scores = {};
    LeftSide weights;
    float factors[2];
    // Runs of tiles that the group sees. It lets go of all values before it waits for tiles that it
    // does not see: these could need the buffers.
    for (; tile < List::kTiles; tile = next(list, tile, t)) {
      state.keys.wait_full(t);
      wait_for_turn();
      begin_scores<kDim, Half>(queries, tiles.keys(t), scores);
      pass_turn();
      wgmma_wait<0>();
      wgmma_keep(accumulators(scores));
      release_keys(t);
      weigh_tile(part, tile, scores, softmax, factors);
      if (is_softmax(args)) scale_rows(sums, factors);
      round_weights<Half>(scores, weights);
      for (tile = list.next(tile + 1), ++t; sees(list, tile); tile = list.next(tile + 1), ++t) {
        state.keys.wait_full(t);
        wait_for_turn();
        begin_scores<kDim, Half>(queries, tiles.keys(t), scores);
        state.values.wait_full(t - 1);
        begin_sums<kDim, Half>(weights, tiles.values(t - 1), sums);
        pass_turn();
        wgmma_wait<kOverlaps ? 1 : 0>();
        wgmma_keep(accumulators(scores));
        release_keys(t);
        if constexpr (!kOverlaps) finish_sums(t - 1, sums);
        weigh_tile(part, tile, scores, softmax, factors);
        if constexpr (kOverlaps) finish_sums(t - 1, sums);
        if (is_softmax(args)) scale_rows(sums, factors);
        round_weights<Half>(scores, weights);
      }
      state.values.wait_full(t - 1);
      begin_sums<kDim, Half>(weights, tiles.values(t - 1), sums);
      finish_sums(t - 1, sums);
    }
  }

  __device__ void attend_all() {
    Fragment<kDim / 8> sums = {};
    OnlineSoftmax softmax;
    unsigned t = 0;
    if (group == 1) pass_turn();  // group 0 has the first one
    for (unsigned n = 0;; ++n) {
      state.parts.wait_full(n);
      const Part& part = state.slots[n % kPartSlots];
      if (part.is_none) break;
      const unsigned own = n * kGroups + group;  // its queries in their ring
      state.queries.wait_full(own);
      attend(n, t, sums, softmax);
      if (part.ends) {
        // The output goes by way of the group's queries, which all its warps have read.
        named_barrier_sync(group_barrier(), kGroupWarps * kLanes);
        const std::int64_t first_query = part.at.first_query + warp * kWarpRows;
        const std::int64_t left = part.at.queries.count - first_query;
        write_queries(args, part.at, first_query,
                      static_cast<int>(std::min<std::int64_t>(left, kWarpRows)),
                      WarpPart<kDim, 1>{warp}, sums, softmax,
                      reinterpret_cast<Half*>(tiles.queries(n, 0)), lane_index_here());
        fence_async_proxy_shared();
        for (auto& block : sums) {
          for (float& x : block) x = 0;
        }
        softmax = {};
      }
      release(&state.queries.empty[own % (kQuerySlots<kDim> * kGroups)]);
      release(&state.parts.empty[n % kPartSlots]);
    }
    if (group == 0) wait_for_turn();  // so that no barrier is left half full
  }
};

#endif

template <int kDim, class Half, Extras kExtras>
__global__ void __launch_bounds__(kBlockWarps* kLanes, 1)
    attend(const __grid_constant__ AttentionView args, const WorkList work, Counter* next_task,
           const __grid_constant__ CUtensorMap q, const __grid_constant__ CUtensorMap k,
           const __grid_constant__ CUtensorMap v) {
#ifdef SERRATE_WGMMA
  __shared__ SharedState<kDim> state;
  const Tiles<kDim> tiles{dynamic_shared<unsigned char>()};
  // In uniform registers, as descriptors are: the others are all taken.
  const int warp = __shfl_sync(~0u, thread_index() / kLanes, 0);
  if (thread_index() == 0) state.init();
  __syncthreads();
  if (warp < kQueryWarps) {
    raise_registers<kQueryRegisters>();
    QueryWarp<kDim, Half, kExtras>{args, state, tiles, warp}.attend_all();
    return;
  }
  lower_registers<kOtherRegisters>();
  if (warp > kQueryWarps) {
    list_parts(args, work, next_task, state, warp - kQueryWarps - 1);
  } else if (lane_index() == 0) {
    load_parts<kDim>(&q, &k, &v, state, tiles);
  }
#endif
}

template <int kDim, class Half, Extras kExtras>
void run(const AttentionView& args, const WorkList& work, const Stream& stream) {
  constexpr int kBytes = kSharedBytes<kDim>;
  const auto kernel = attend<kDim, Half, kExtras>;
  cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
  Buffer<Counter> next_task = Buffer<Counter>::zeros(1, stream);
  launch(kernel, static_cast<unsigned>(processors_of(stream)), dim3(kThreadsX, 4 * kBlockWarps),
         kBytes, stream, args, work, next_task.device_data(), map_of(args.q, args.num_heads, kDim),
         map_of(args.k, args.num_key_heads, kDim), map_of(args.v, args.num_key_heads, kDim));
}

}  // namespace

bool longest_take_wgmma(const AttentionView& args, const Stream& stream) {
  return kHasSm90a && args.head_dim >= 64 && has_map(args.q) && has_map(args.k) &&
         has_map(args.v) && attribute_of(stream, cudaDevAttrComputeCapabilityMajor) == 9;
}

void forward_of_longest(const AttentionView& args, const WorkList& work, const Stream& stream) {
  with_halves<256>(args, [&](auto dim, auto half) {
    if constexpr (dim() >= 64) {
      using Half = decltype(half);
      if (extras_of(args) == Extras::kAny) {
        run<dim(), Half, Extras::kAny>(args, work, stream);
      } else {
        run<dim(), Half, Extras::kNone>(args, work, stream);
      }
    }
  });
}

}  // namespace serrate
