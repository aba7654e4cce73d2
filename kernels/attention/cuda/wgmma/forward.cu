// FlashAttention-3's forward (Shah et al. 2024) of long sequences on Hopper (sm_90a), for halves
// and for e4m3. A block takes 128 queries of a sequence in one head, and stays for one task after
// the other. Two warpgroups of 64 queries multiply by wgmma, in turn: one's products run while the
// other's scores become weights, and up to head_dim 128 those with the values of a tile while the
// next tile's scores do. A third warpgroup keeps them busy: three of its warps list the tiles that
// the mask leaves, one copies queries, keys and values to rings of buffers, all of which run ahead
// into the next task. The copies go by rows of a sequence: what is behind its end is neither read
// nor NaN. Of e4m3 one of the three transposes values.
#include "kernels/attention/cuda/launch_tiles.cuh"
#include "kernels/attention/cuda/mma/weights.cuh"
#include "kernels/attention/cuda/wgmma/elements.cuh"
#include "kernels/attention/cuda/wgmma/feed.cuh"
#include "kernels/cuda/warpgroup.cuh"

namespace serrate {
namespace {

#ifdef SERRATE_WGMMA

// A group's queries as products take them: of 64 columns of halves a warp has its 16 rows in
// registers, so that shared memory has to feed keys and values alone; for 128 there are too few.
template <class Elements>
struct Queries {
  static constexpr int kColumns = Elements::kQueryColumns;
  static constexpr bool kInRegisters = kColumns <= 64;
  std::uint32_t fragments[kInRegisters ? kColumns / 16 : 1][4];
  unsigned char* tile;

  __device__ explicit Queries(unsigned char* queries) : tile(queries) {
    if constexpr (kInRegisters) {
      const SwizzledRows<kPanelColumns> rows{reinterpret_cast<__nv_bfloat16*>(tile)};
      const int lane = lane_index(), row = thread_index() / kLanes % kGroupWarps * kWarpRows;
#pragma unroll
      for (int k = 0; k < kColumns / 16; ++k) {
        load_matrices(fragments[k], rows.at(row + lane % 16, 2 * k + lane / 16));
      }
    }
  }
};

// Begins scores = 64 queries times the transpose of 64 keys; queries of two terms are multiplied
// term by term.
template <class Elements>
__device__ void begin_scores(const Queries<Elements>& queries, const unsigned char* keys,
                             Fragment<8>& scores) {
  constexpr int kColumns = Elements::kColumns;
  wgmma_keep(accumulators(scores));
  wgmma_fence();
  if constexpr (Queries<Elements>::kInRegisters) {
    const std::uint64_t b = descriptor_of(keys, 0, kColumns < kPanelColumns);
#pragma unroll
    for (int k = 0; k < Elements::kQueryColumns / 16; ++k) {
      wgmma<Elements::kType, kMmaTile>(accumulators(scores), queries.fragments[k],
                                       advance(b, bytes_before(k % (kColumns / 16))),
                                       k == 0 ? WgmmaScale::kOverwrite : WgmmaScale::kAdd);
    }
  } else {
    static_assert(Elements::kQueryColumns == kColumns);
    multiply_rows<kColumns, Elements::kType>(queries.tile, keys, scores);
  }
  wgmma_commit();
}

// Begins sums += weights times 64 values; of e4m3, sums = those.
template <class Elements>
__device__ void begin_sums(const typename Elements::Weights& weights, const unsigned char* values,
                           Fragment<Elements::kDim / 8>& sums) {
  wgmma_keep(accumulators(sums));
  wgmma_fence();
  Elements::add_product(weights, values, sums);
  wgmma_commit();
}

// One of the warps of the queries, and where it is in the rings.
template <class Elements>
struct QueryWarp {
  using List = TileList<kQueryWarps>;
  static constexpr int kDim = Elements::kDim;
  // Whether scores become weights while a product with the weights before is under way. At
  // head_dim 256 there are no registers for both; the products of the other group take longer.
  static constexpr bool kOverlaps = kDim <= 128;

  Elements elements;
  SharedState<Elements>& state;
  Tiles<Elements> tiles;
  int warp, group = warp / kGroupWarps;

  // Both groups have a turn to multiply for every tile.
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
    release(&state.keys.empty[t % Elements::kKeySlots]);
  }
  __device__ void release_values(unsigned t) const {
    release(&state.values.empty[t % Elements::kKeySlots]);
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
  __device__ void weigh_tile(const Part& part, int tile, float2 scales, Fragment<8>& scores,
                             OnlineSoftmax& softmax, float (&factors)[2]) {
    const int first_key = (part.first_tile + tile) * kMmaTile;
    const LaneTile lane{
        static_cast<int>(part.at.first_query) + warp * kWarpRows + lane_index() / 4,
        part.ranges + warp * kWarpRows, first_key,
        static_cast<int>(std::min<std::int64_t>(part.at.num_keys - first_key, kMmaTile)),
        part.list.of_warp(tile, warp).is_full};
    elements.weigh(part.at, lane, scales, scores, softmax, factors);
  }

  __device__ void finish_sums(unsigned t, Fragment<kDim / 8>& sums) {
    wgmma_wait<0>();
    wgmma_keep(accumulators(elements.products(sums)));
    release_values(t);
    elements.promote(sums);
  }

  // sums += weights times tile t of values, 64 columns at a time, for elements that have no
  // registers for more: the fragment of scores and another take turns, so that one is added while
  // the products of the other are under way. begin_next() begins what follows them in `scores`, if
  // anything does.
  template <bool kHasNext, typename F>
  __device__ void add_in_parts(const typename Elements::Weights& weights, unsigned t,
                               Fragment<kDim / 8>& sums, Fragment<8>& scores, F&& begin_next) {
    constexpr int kParts = kDim / 64;
    Fragment<8> other = {};
    const auto begin = [&](int part, Fragment<8>& products) {
      wgmma_keep(accumulators(products));
      wgmma_fence();
      Elements::add_product(weights, tiles.values(t), products, part);
      wgmma_commit();
    };
    state.values.wait_full(t);
    begin(0, scores);
    begin(1, other);
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
      Fragment<8>& products = part % 2 == 0 ? scores : other;
      if (part + 1 < kParts || kHasNext) {
        wgmma_wait<1>();
      } else {
        wgmma_wait<0>();
      }
      wgmma_keep(accumulators(products));
      elements.add_part(part, products, sums);
      if (part + 2 < kParts) begin(part + 2, products);
      if (kHasNext && part + 2 == kParts) begin_next();
    }
    release_values(t);
  }

  // All tiles of part n; t is the number of its first one in the rings, and then of the next
  // part's.
  __device__ void attend(unsigned n, unsigned& t, Fragment<kDim / 8>& sums,
                         OnlineSoftmax& softmax) {
    const Part& part = state.slots[n % kPartSlots];
    const List& list = part.list;
    int tile = next(list, 0, t);
    if (tile == List::kTiles) return;  // it may have no queries
    const Queries<Elements> queries(tiles.queries(n, group));
    elements.begin(state.query_scales[(n * kGroups + group) % state.kQuerySlots]);
    Fragment<8> scores = {};
    typename Elements::Weights weights;
    float factors[2];
    // Runs of tiles that the group sees. It lets go of all values before it waits for tiles that it
    // does not see: these could need the buffers.
    for (; tile < List::kTiles; tile = next(list, tile, t)) {
      state.keys.wait_full(t);
      wait_for_turn();
      begin_scores<Elements>(queries, tiles.keys(t), scores);
      pass_turn();
      wgmma_wait<0>();
      wgmma_keep(accumulators(scores));
      float2 scales = state.tile_scales[t % Elements::kKeySlots];
      release_keys(t);
      weigh_tile(part, tile, scales, scores, softmax, factors);
      elements.shrink(factors, sums);
      elements.round(scores, scales, weights);
      for (tile = list.next(tile + 1), ++t; sees(list, tile); tile = list.next(tile + 1), ++t) {
        state.keys.wait_full(t);
        wait_for_turn();
        const auto begin_next = [&] { begin_scores<Elements>(queries, tiles.keys(t), scores); };
        if constexpr (Elements::kAddsInParts) {
          add_in_parts<true>(weights, t - 1, sums, scores, begin_next);
        } else {
          begin_next();
          state.values.wait_full(t - 1);
          begin_sums<Elements>(weights, tiles.values(t - 1), elements.products(sums));
        }
        pass_turn();
        wgmma_wait<kOverlaps ? 1 : 0>();
        wgmma_keep(accumulators(scores));
        scales = state.tile_scales[t % Elements::kKeySlots];
        release_keys(t);
        if constexpr (!kOverlaps && !Elements::kAddsInParts) finish_sums(t - 1, sums);
        weigh_tile(part, tile, scales, scores, softmax, factors);
        if constexpr (kOverlaps) finish_sums(t - 1, sums);
        elements.shrink(factors, sums);
        elements.round(scores, scales, weights);
      }
      if constexpr (Elements::kAddsInParts) {
        add_in_parts<false>(weights, t - 1, sums, scores, [] {});
      } else {
        state.values.wait_full(t - 1);
        begin_sums<Elements>(weights, tiles.values(t - 1), elements.products(sums));
        finish_sums(t - 1, sums);
      }
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
        elements.write(part.at, warp, sums, softmax, tiles.queries(n, 0));
        for (auto& block : sums) {
          for (float& x : block) x = 0;
        }
        softmax = {};
      }
      release(&state.queries.empty[own % state.kQuerySlots]);
      release(&state.parts.empty[n % kPartSlots]);
    }
    if (group == 0) wait_for_turn();  // so that no barrier is left half full
  }
};

#endif

template <class Elements>
__global__ void __launch_bounds__(kBlockWarps* kLanes, 1)
    attend(const __grid_constant__ typename Elements::Call call, const WorkList work,
           Counter* next_task, const __grid_constant__ CUtensorMap q,
           const __grid_constant__ CUtensorMap k, const __grid_constant__ CUtensorMap v) {
#ifdef SERRATE_WGMMA
  __shared__ SharedState<Elements> state;
  const Tiles<Elements> tiles{dynamic_shared<unsigned char>()};
  // In uniform registers, as descriptors are: the others are all taken.
  const int warp = __shfl_sync(~0u, thread_index() / kLanes, 0);
  if (thread_index() == 0) state.init();
  __syncthreads();
  if (warp < kQueryWarps) {
    raise_registers<kQueryRegisters>();
    QueryWarp<Elements>{{{}, call}, state, tiles, warp}.attend_all();
    return;
  }
  lower_registers<kOtherRegisters>();
  constexpr int kFirstListing = kBlockWarps - kListingWarps<Elements>;
  if (warp >= kFirstListing) {
    list_parts(call.attention, work, next_task, state, warp - kFirstListing);
  } else if (Elements::kTransposes && warp > kQueryWarps) {
    if constexpr (Elements::kTransposes) transpose_parts(state, tiles);
  } else if (lane_index() == 0) {
    load_parts<Elements>(call, &q, &k, &v, state, tiles);
  }
#endif
}

template <class Elements>
void run(const typename Elements::Call& call, const WorkList& work, const Stream& stream) {
  constexpr int kBytes = kSharedBytes<Elements>;
  const AttentionView& args = call.attention;
  const auto kernel = attend<Elements>;
  cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
  Buffer<Counter> next_task = Buffer<Counter>::zeros(1, stream);
  launch(kernel, static_cast<unsigned>(processors_of(stream)), dim3(kThreadsX, 4 * kBlockWarps),
         kBytes, stream, call, work, next_task.device_data(),
         map_of(args.q, args.num_heads, Elements::kQueryColumns),
         map_of(args.k, args.num_key_heads, Elements::kColumns),
         map_of(args.v, args.num_key_heads, Elements::kColumns));
}

bool can_take_wgmma(const AttentionView& args, const Stream& stream) {
  return has_map(args.q) && has_map(args.k) && has_map(args.v) && is_hopper(stream);
}

}  // namespace

bool is_hopper(const Stream& stream) {
  return kHasSm90a && attribute_of(stream, cudaDevAttrComputeCapabilityMajor) == 9;
}

bool longest_take_wgmma(const AttentionView& args, const Stream& stream) {
  return args.q.type != DataType::kFloat32 && args.head_dim >= 64 && can_take_wgmma(args, stream);
}

void forward_of_longest(const AttentionView& args, const WorkList& work, const Stream& stream) {
  with_wgmma(args, [&](auto dim, auto extras, auto row) {
    run<Halves<dim(), decltype(row), extras()>>({args}, work, stream);
  });
}

bool longest_take_wgmma(const Fp8Call& call, const Stream& stream) {
  return can_take_wgmma(call.attention, stream);
}

void forward_of_longest(const Fp8Call& call, const WorkList& work, const Stream& stream) {
  with_fp8_head_dim(call.attention.head_dim,
                    [&](auto dim) { run<Fp8<dim()>>(call, work, stream); });
}

}  // namespace serrate
