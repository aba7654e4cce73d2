// The backward of long sequences on Hopper (sm_90a), for halves, without atomics: two kernels of
// seven products, which are one with the sides of the scores swapped. A block owns 128 rows,
// queries with d_out or keys with values, and stays for one task after the other; tiles of 64 rows
// of the other side go by. A warpgroup of two owns 64 rows: it multiplies both tensors by those of
// a tile, scores and gradients of weights, with its rows as the rows of its registers, which thus
// are the left side of the products that follow: gradients of scores times keys for d_q; weights
// times d_out for d_v and gradients of scores times queries for d_k. The products of one group run
// while the other's scores become weights. A third warpgroup lists tiles and copies, ahead of them
// and into the next task. The kernel that owns queries is first and writes delta, the sum of d_out
// * out, for the other one.
#include "kernels/attention/cuda/backward_wgmma_feed.cuh"
#include "kernels/attention/cuda/launch_tiles.cuh"
#include "kernels/attention/cuda/wgmma_gradients.cuh"
#include "kernels/cuda/warpgroup.cuh"

namespace serrate {
namespace {

using namespace backward_wgmma;

#ifdef SERRATE_WGMMA

// Of a thread: each of the 384 begins with 168. Deltas are summed by those that list.
constexpr int owner_registers(Side side) {
  return side == Side::kQueries ? 200 : 216;
}
constexpr int other_registers(Side side) {
  return side == Side::kQueries ? 104 : 72;
}
constexpr bool registers_suffice(Side side) {
  return kGroups * owner_registers(side) + other_registers(side) <= (kGroups + 1) * 168;
}
static_assert(registers_suffice(Side::kQueries) && registers_suffice(Side::kKeys));

// Rows of a tile that a group multiplies by at a time: what registers allow beside d_k and d_v.
constexpr int rows_at_once(int head_dim, Side side, Extras extras) {
  if (head_dim <= 64 || side == Side::kQueries) return kMmaTile;
  return extras == Extras::kNone ? 32 : 16;
}

// One of the warps that own rows.
template <int kDim, class Half, Side kSide, Extras kExtras>
struct OwnerWarp {
  using List = TileList<kOwnerWarps>;
  static constexpr bool kOwnsQueries = kSide == Side::kQueries;
  static constexpr int kRows = rows_at_once(kDim, kSide, kExtras), kBlocks = kRows / 8;
  const AttentionBackwardView& call;
  SharedState<kDim, kSide>& state;
  GradientTiles<kDim> tiles;
  int warp = thread_index() / kLanes, group = warp / kGroupWarps;

  // What a group sums: d_q alone, or d_k and d_v.
  struct Sums {
    Fragment<kDim / 8> first = {}, second = {};
  };

  __device__ void release(Mbarrier* empty) const {
    __syncwarp();
    if (lane_index() == 0) mbarrier_arrive(empty);
  }

  // Products of kRows rows of a tile, from first_row on, become weights and gradients of scores.
  __device__ void weigh_rows(const Part<kSide>& part, unsigned t, int tile, int first_row,
                             Fragment<kBlocks>& weights, Fragment<kBlocks>& d_scores) const {
    const AttentionView& args = call.forward;
    const int own_row = warp * kWarpRows, first = lane_index() / 4 + own_row;
    const bool is_full = part.list.is_full(tile, group * kGroupWarps, kGroupWarps);
    if constexpr (kOwnsQueries) {
      const int row = (part.first_tile + tile) * kMmaTile + first_row;
      const auto keys = static_cast<int>(std::min<std::int64_t>(part.at.num_keys - row, kRows));
      const QuerySums* const sums = part.own.sums + own_row + lane_index() / 4;
      const QueryLaneTile of_lane{{static_cast<int>(part.at.first_query) + first,
                                   part.own.ranges + own_row, row, keys, is_full},
                                  {sums[0], sums[8]}};
      weigh_pairs<kExtras>(args, part.at, of_lane, weights, d_scores);
    } else {
      const QueryTile& queries = state.others[t % step_slots(kDim)];
      const TilePair& at = queries.at;
      const KeyLaneTile of_lane{static_cast<int>(at.first_key) + first,
                                static_cast<int>(at.first_query) + first_row,
                                queries.ranges + first_row, queries.sums + first_row, is_full};
      weigh_pairs<kExtras>(args, at, of_lane, weights, d_scores);
    }
  }

  // Tile t of the rings, which the group sees.
  __device__ void add_tile(const Part<kSide>& part, unsigned n, unsigned t, int tile,
                           Sums& sums) const {
#pragma unroll 1
    for (int row = 0; row < kMmaTile; row += kRows) {
      const unsigned char *const first = tiles.step(t, 0) + row * kRowBytes, *const second =
                                                                                 tiles.step(t, 1) +
                                                                                 row * kRowBytes;
      Fragment<kBlocks> weights = {}, d_scores = {};
      wgmma_keep(accumulators(weights));
      wgmma_keep(accumulators(d_scores));
      wgmma_fence();
      multiply_rows<kDim, kTypeOf<Half>>(tiles.own(n, 0, group), first, weights);
      multiply_rows<kDim, kTypeOf<Half>>(tiles.own(n, 1, group), second, d_scores);
      wgmma_commit();
      wgmma_wait<0>();
      wgmma_keep(accumulators(weights));
      wgmma_keep(accumulators(d_scores));
      weigh_rows(part, t, tile, row, weights, d_scores);
      std::uint32_t rounded[kOwnsQueries ? 1 : 2][kBlocks / 2][4];
      round_weights<Half>(d_scores, rounded[0]);
      wgmma_keep(accumulators(sums.first));
      if constexpr (!kOwnsQueries) {
        round_weights<Half>(weights, rounded[1]);
        wgmma_keep(accumulators(sums.second));
      }
      wgmma_fence();
      add_rows<kDim, Half>(rounded[0], first, sums.first);
      if constexpr (!kOwnsQueries) add_rows<kDim, Half>(rounded[1], second, sums.second);
      wgmma_commit();
      wgmma_wait<0>();
      wgmma_keep(accumulators(sums.first));
      if constexpr (!kOwnsQueries) wgmma_keep(accumulators(sums.second));
    }
  }

  // The group's rows of a tensor, by way of its tile, which all its warps have read.
  __device__ void write(float scale, unsigned n, int tensor, Fragment<kDim / 8>& sums,
                        const OutputHeads& to, std::int64_t first, std::int64_t count,
                        std::int64_t head) const {
    const int row = warp * kWarpRows;
    // In no loop-invariant way: else the places of all chunks are in registers all the time.
    const int in_group = __shfl_sync(~0u, row % kMmaTile, 0);
    write_scaled<kDim, Half>(scale * scale_of_sums(call.forward), sums,
                             {reinterpret_cast<Half*>(tiles.own(n, tensor, group))}, in_group, to,
                             first + row, head, count - row);
  }
  __device__ void write_all(const Part<kSide>& part, unsigned n, Sums& sums) const {
    const TilePair& at = part.at;
    const float scale = call.forward.scale;
    named_barrier_sync(1 + group, kGroupWarps * kLanes);
    if constexpr (kOwnsQueries) {
      write(scale, n, 0, sums.first, call.d_q, at.queries.in_q + at.first_query,
            at.queries.count - at.first_query, at.head);
    } else {
      const std::int64_t first = at.in_keys + at.first_key, count = at.num_keys - at.first_key;
      write(scale, n, 0, sums.first, call.d_k, first, count, part.key_head);
      write(1, n, 1, sums.second, call.d_v, first, count, part.key_head);
    }
    fence_async_proxy_shared();
  }

  // Adds all tiles of part n; t is the number of its first one in the rings, and then of the next
  // part's.
  __device__ void add_part(const Part<kSide>& part, unsigned n, unsigned& t, Sums& sums) const {
    state.rows.wait_full(n);
    for (int head = 0; head < part.heads; ++head) {
      for (int tile = part.list.next(0); tile < List::kTiles;
           tile = part.list.next(tile + 1), ++t) {
        state.steps.wait_full(t);
        if (part.list.is_seen(tile, group * kGroupWarps, kGroupWarps)) {
          add_tile(part, n, t, tile, sums);
        }
        release(&state.steps.empty[t % step_slots(kDim)]);
      }
    }
  }

  __device__ void sum_all() const {
    unsigned n = 0, t = 0;
    for (;;) {
      Sums sums;
      for (bool ends = false; !ends; ++n) {
        state.parts.wait_full(n);
        const Part<kSide>& part = state.slots[n % kTaskSlots];
        if (part.is_none) return;
        add_part(part, n, t, sums);
        ends = part.ends;
        if (ends) write_all(part, n, sums);
        release(&state.rows.empty[n % kTaskSlots]);
        release(&state.parts.empty[n % kTaskSlots]);
      }
    }
  }
};

#endif

template <int kDim, class Half, Side kSide, Extras kExtras>
__global__ void __launch_bounds__(kBlockWarps* kLanes, 1)
    sum_gradients(const __grid_constant__ AttentionBackwardView call, const WorkList work,
                  Counter* next_task, float* deltas, const __grid_constant__ TokenMaps maps) {
#ifdef SERRATE_WGMMA
  __shared__ SharedState<kDim, kSide> state;
  const GradientTiles<kDim> tiles{dynamic_shared<unsigned char>()};
  const int warp = thread_index() / kLanes;
  if (thread_index() == 0) state.init();
  __syncthreads();
  if (warp < kOwnerWarps) {
    raise_registers<owner_registers(kSide)>();
    OwnerWarp<kDim, Half, kSide, kExtras>{call, state, tiles}.sum_all();
    return;
  }
  lower_registers<other_registers(kSide)>();
  if (warp > kOwnerWarps) {
    list_parts<kDim, Half, kSide>(call, work, next_task, deltas, state, warp - kOwnerWarps - 1);
  } else {
    load_parts<kDim, kSide>(call.forward, maps, deltas, state, tiles);
  }
#endif
}

// What both kernels have in memory of their own.
std::int64_t num_deltas(const AttentionView& args) {
  return args.activation == AttentionActivation::kSoftmax ? std::ssize(args.lse) : 0;
}
constexpr std::int64_t kKernels = 2;

template <int kDim, class Half, Extras kExtras>
void run(const AttentionBackwardView& call, const WorkList& work, const Stream& stream) {
  const AttentionView& args = call.forward;
  constexpr int kBytes = kSharedBytes<kDim>;
  auto tasks = Buffer<Counter>::zeros(kKernels, stream);
  Buffer<float> deltas(num_deltas(args), stream);
  const TokenMaps maps{
      map_of(args.q, args.num_heads, kDim), map_of(call.d_out, args.num_heads, kDim),
      map_of(args.k, args.num_key_heads, kDim), map_of(args.v, args.num_key_heads, kDim)};
  const auto launch_one = [&](auto kernel, Counter* next_task) {
    cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
    launch(kernel, static_cast<unsigned>(processors_of(stream)), dim3(kThreadsX, 4 * kBlockWarps),
           kBytes, stream, call, work, next_task, deltas.device_data(), maps);
  };
  launch_one(sum_gradients<kDim, Half, Side::kQueries, kExtras>, tasks.device_data());
  launch_one(sum_gradients<kDim, Half, Side::kKeys, kExtras>, tasks.device_data() + 1);
}

}  // namespace

bool longest_take_wgmma(const AttentionBackwardView& call, const Stream& stream) {
  const AttentionView& args = call.forward;
  return args.head_dim <= 128 && longest_take_wgmma(args, stream) && has_map(call.d_out) &&
         args.num_shared_queries == 0;
}

std::int64_t backward_of_longest_workspace(const AttentionBackwardView& call) {
  return num_deltas(call.forward) * static_cast<std::int64_t>(sizeof(float)) +
         kKernels * static_cast<std::int64_t>(sizeof(Counter));
}

void backward_of_longest(const AttentionBackwardView& call, const WorkList& work,
                         const Stream& stream) {
  with_halves<128>(call.forward, [&](auto dim, auto half) {
    if constexpr (dim() >= 64) {
      using Half = decltype(half);
      if (extras_of(call.forward) == Extras::kAny) {
        run<dim(), Half, Extras::kAny>(call, work, stream);
      } else {
        run<dim(), Half, Extras::kNone>(call, work, stream);
      }
    }
  });
}

}  // namespace serrate
