// The backward on Hopper (sm_90a), for halves, of sequences whose queries a block has on chip:
// registers have d_q, shared memory queries and d_out. Rounded up to 64 in each head, and of all
// heads that share keys, these are 257 to 512, 129 to 256 or up to 128 at head_dim 64, 128 or 256;
// keys are more than 64, and neither they nor a head's queries more than 512 (256 at head_dim 256).
// A block of two warpgroups handles one sequence and one head of keys, as in
// mma/backward_resident.cu: every tensor is read or written once, and there are five products.
// Blocks of 32 keys with values go by, copied ahead. The two groups take tiles of 64 queries
// alternately. For a block of keys, a group first makes weights and gradients of scores of its
// tiles, which go to shared memory, and then sums d_q of its tiles, and one group d_v and the other
// d_k of the block over all tiles: these as columns times keys, since wgmma has 64 rows.
//
// Of up to twice as many queries, at head_dim 128 and 256, two blocks of a cluster have every other
// tile each. One brings keys, the other values, to both. Each has half of the columns of d_k and
// d_v: for a block of keys it first sums the other half, of its queries, which it leaves with the
// other block in place of the keys and values that both have multiplied by.
#include "kernels/attention/cuda/launch_tiles.cuh"
#include "kernels/attention/cuda/mma/gradients.cuh"
#include "kernels/attention/cuda/wgmma/gradients.cuh"
#include "kernels/attention/cuda/wgmma/resident.cuh"

namespace serrate {
namespace {

using namespace resident_wgmma;

#ifdef SERRATE_WGMMA

// One of the block's warps; of two blocks, or one.
template <int kDim, class Half, Extras kExtras, int kBlocks>
struct ResidentWarp {
  static constexpr WgmmaType kType = kTypeOf<Half>;
  static constexpr int kOwnTiles = kTiles<kDim> / kGroups;
  const AttentionBackwardView& call;
  const TokenMaps& maps;
  SharedState<kDim>& state;
  ResidentTiles<kDim> tiles;
  int warp, rank;  // of the block in its cluster
  int group = warp / kGroupWarps, row = warp % kGroupWarps * kWarpRows;

  using QueryGradients = Fragment<kDim / 8>[kOwnTiles];
  using Columns = KeyColumns<kDim, Half, kBlocks>;
  Columns columns{tiles, warp};

  // Tiles of queries of all heads that share the keys, and how many of them the block has.
  __device__ GroupTiles queries() const {
    const std::int64_t heads = heads_per_key_head(call.forward);
    return {state.task.key_head * heads, heads,
            static_cast<int>(ceil_div(state.task.at.queries.count, kMmaTile))};
  }
  __device__ int own_steps() const {
    return static_cast<int>(ceil_div(queries().steps() - rank, kBlocks));
  }

  // By one thread.
  __device__ void load_queries(int steps) const {
    mbarrier_arrive_expecting(&state.queries, 2 * steps * kTileBytes<kDim>);
#pragma unroll 1
    for (int tile = 0; tile < steps; ++tile) {
      const TilePair& at = state.tiles[tile];
      const std::int64_t count = at.queries.count - at.first_query;
      load_tile<kDim>(tiles.q(tile), {&maps.q, at.queries.in_q + at.first_query, count, at.head},
                      &state.queries);
      load_tile<kDim>(tiles.d_out(tile),
                      {&maps.d_out, at.queries.in_out + at.first_query, count, at.head},
                      &state.queries);
    }
  }
  // Likewise by one thread, of each thread block where two share a sequence; one of these loads the
  // keys, the other the values, to both. Nobody uses what was where block n of keys comes any more.
  __device__ void expect_keys(unsigned n) const {
    mbarrier_arrive_expecting(&tiles.barriers().full[n % kSlots],
                              2 * ResidentTiles<kDim>::kKeyBytes);
  }
  __device__ void load_keys(unsigned n, int first_key) const {
    const TilePair& at = state.task.at;
    if (first_key >= at.num_keys) return;
    const auto load = [&](unsigned char* to, const CUtensorMap* map) {
      load_tile<kDim, kKeys>(
          to, {map, at.in_keys + first_key, at.num_keys - first_key, state.task.key_head},
          &tiles.barriers().full[n % kSlots], 0, kBlocks == 1 ? 0 : (1u << kBlocks) - 1);
    };
    if (kBlocks == 1) expect_keys(n);
    if (kBlocks == 1 || rank == 0) load(tiles.k(n), &maps.k);
    if (kBlocks == 1 || rank == 1) load(tiles.v(n), &maps.v);
  }

  // Calls f(number, place, how many there are) for the warp's share of the runs of 16 queries.
  template <typename F>
  __device__ void for_each_run(int steps, F&& f) const {
#pragma unroll 1
    for (int run = warp; run < steps * kGroupWarps; run += kNumWarps) {
      TilePair at = state.tiles[run / kGroupWarps];
      at.first_query += run % kGroupWarps * kWarpRows;
      f(run, at,
        static_cast<int>(
            std::clamp<std::int64_t>(at.queries.count - at.first_query, 0, kWarpRows)));
    }
  }
  __device__ void list_tiles(int steps) const {
    for_each_run(steps, [&](int run, const TilePair& at, int count) {
      KeyRanges* const ranges = state.ranges + run * kWarpRows;
      set_key_ranges(call.forward, at, ranges);
      state.list.fill(call.forward, at, ranges, at.first_query, count, 0, run);
    });
  }
  __device__ void sum_d_out(int steps) const {
    for_each_run(steps, [&](int run, const TilePair& at, int count) {
      sum_queries<kDim>(call.forward, at, count, PanelRows<Half>{tiles.d_out(run / kGroupWarps)},
                        run % kGroupWarps * kWarpRows, state.sums + run * kWarpRows);
    });
  }

  // Of lane i: a bit for each tile of queries that sees any of the keys of tile i.
  __device__ unsigned seen_tiles(int steps) const {
    static_assert(kMostOfWhole / kMmaTile <= kLanes);
    unsigned seen = 0;
    for (int tile = 0; tile < steps; ++tile) {
      const bool is_seen = state.list.is_seen(lane_index(), tile * kGroupWarps, kGroupWarps);
      seen |= static_cast<unsigned>(is_seen) << tile;
    }
    return seen;
  }

  // Weights and gradients of scores of one of the group's tiles and block n of keys.
  __device__ void weigh_tile(int tile, unsigned n, int first_key) const {
    Fragment<kKeyBlocks> weights = {}, d_scores = {};
    wgmma_keep(accumulators(weights));
    wgmma_keep(accumulators(d_scores));
    wgmma_fence();
    multiply_rows<kDim, kType, kKeys>(tiles.q(tile), tiles.k(n), weights);
    multiply_rows<kDim, kType, kKeys>(tiles.d_out(tile), tiles.v(n), d_scores);
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_keep(accumulators(weights));
    wgmma_keep(accumulators(d_scores));
    const int run = tile * kGroupWarps + warp % kGroupWarps, g = lane_index() / 4;
    const TilePair& at = state.tiles[tile];
    const QuerySums* const sums = state.sums + run * kWarpRows + g;
    const auto keys = static_cast<int>(std::min<std::int64_t>(at.num_keys - first_key, kKeys));
    const QueryLaneTile of_lane{
        {static_cast<int>(at.first_query) + row + g, state.ranges + run * kWarpRows, first_key,
         keys, state.list.is_full(first_key / kMmaTile, run, 1)},
        {sums[0], sums[8]}};
    weigh_pairs<kExtras>(call.forward, at, of_lane, weights, d_scores);
    using Rows = SwizzledRows<kKeys, Half>;
    stage_rows(weights, Rows{reinterpret_cast<Half*>(tiles.weights(tile))}, row, 0);
    stage_rows(d_scores, Rows{reinterpret_cast<Half*>(tiles.d_scores(tile))}, row, 0);
  }

  // d_q of the group's tiles that see block n of keys += gradients of scores times keys.
  __device__ void add_d_q(unsigned seen, unsigned n, QueryGradients& d_q) const {
    const std::uint64_t b = descriptor_of(tiles.k(n), kKeys * kRowBytes);
#pragma unroll
    for (int i = 0; i < kOwnTiles; ++i) {
      const int tile = i * kGroups + group;
      if ((seen >> tile & 1) == 0) continue;
      const std::uint64_t a = descriptor_of(tiles.d_scores(tile), 0, true);
      wgmma_keep(accumulators(d_q[i]));
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < kKeys / 16; ++k) {
        wgmma<kType, kDim, WgmmaMajor::kDepth, WgmmaMajor::kRows>(
            accumulators(d_q[i]), advance(a, k * 32), advance(b, k * 16 * kRowBytes),
            WgmmaScale::kAdd);
      }
      wgmma_commit();
      wgmma_wait<0>();
      wgmma_keep(accumulators(d_q[i]));
    }
  }

  // Of block n of keys, the group's sums of the columns that the other thread block has go there,
  // to the place of its values or keys, when its `ready` token has come: it has multiplied by them,
  // and where block n + 1 comes, nobody uses what was there.
  // Phases: `full` has n / 2, and `ready` and `sent` have n. A thread block expects all that its
  // token allows the other one to send before it sends the token. What it then expects of n + 1
  // behind a sequence's last keys are the next sequence's first: the last one of all never comes,
  // on purpose.
  // The token releases nothing. It need not: the other thread block reads nothing that this one
  // wrote but what is sent with bytes of its own, and overwrites only what this one is done with:
  // products have been waited for, and threads' accesses lie before a fence.proxy.async and the
  // barrier.
  __device__ void hand_over(unsigned seen, unsigned n, int first_key) const {
    KeyBarriers& barriers = tiles.barriers();
    const int other = rank ^ 1;
    __syncthreads();
    if (thread_index() == 0) {
      expect_keys(n + 1);
      for (Mbarrier& sent : barriers.sent) {
        mbarrier_arrive_expecting(&sent, ResidentTiles<kDim>::kKeyBytes);
      }
      mbarrier_arrive_expecting(&barriers.ready, sizeof(barriers.token));
      store_async(other, &barriers.token, {}, &barriers.ready);
    }
    typename Columns::Sums sums = {};
    columns.sum(seen, other * Columns::kPanels, sums);
    mbarrier_wait_cluster(&barriers.ready, n % 2);
    if (thread_index() == 0) load_keys(n + 1, first_key + kKeys);
    columns.send(other, n, sums);
  }

  // The block's columns of d_v or d_k of block n of keys, by way of its values or keys. Both groups
  // have read the values; the keys, when both have multiplied by them.
  __device__ void sum_keys(unsigned seen, unsigned n, int first_key) const {
    constexpr unsigned kHandover = 1 + kGroups;
    const bool is_v = group == 0;
    const float scale = scale_of_sums(call.forward) * (is_v ? 1 : call.forward.scale);
    const PanelRows<Half, kKeys> rows{columns.place(n)};
    if constexpr (kBlocks == 2) {
      hand_over(seen, n, first_key);
    } else if (is_v) {
      named_barrier_arrive(kHandover, kThreads);
    }
    const int first_panel = rank * Columns::kPanels, end_panel = first_panel + Columns::kPanels;
#pragma unroll 1
    for (int panel = first_panel; panel < end_panel; panel += Columns::kPanelsAtOnce) {
      typename Columns::Sums sums = {};
      columns.sum(seen, panel, sums);
      if constexpr (kBlocks == 2) {
        columns.add_sent(n, sums);
      } else if (!is_v && panel == 0) {
        named_barrier_sync(kHandover, kThreads);
      }
      columns.stage(scale, panel, sums, rows);
    }
    named_barrier_sync(1 + group, kGroupThreads);
    const TilePair& at = state.task.at;
    const auto count = static_cast<int>(std::min<std::int64_t>(at.num_keys - first_key, kKeys));
    const HeadsView<Half> to = view_as<Half>(is_v ? call.d_v : call.d_k);
    constexpr int kChunks = Columns::kPanels * kPanelColumns / 8;  // of a row
#pragma unroll 1
    for (int i = thread_index() % kGroupThreads; i < count * kChunks; i += kGroupThreads) {
      const int key = i / kChunks, chunk = rank * kChunks + i % kChunks;
      *reinterpret_cast<uint4*>(to.at(at.in_keys + first_key + key, state.task.key_head) +
                                chunk * 8) = *reinterpret_cast<const uint4*>(rows.at(key, chunk));
    }
    fence_async_proxy_shared();
  }

  // By way of the tiles of queries, which all warps have read.
  __device__ void write_d_q(int steps, QueryGradients& d_q) const {
    const float scale = call.forward.scale * scale_of_sums(call.forward);
#pragma unroll
    for (int i = 0; i < kOwnTiles; ++i) {
      const int tile = i * kGroups + group;
      if (tile >= steps) break;
      const TilePair& at = state.tiles[tile];
      const std::int64_t first = at.first_query + row;
      write_scaled<kDim, Half>(scale, d_q[i], {reinterpret_cast<Half*>(tiles.q(tile))}, row,
                               call.d_q, at.queries.in_q + first, at.head,
                               at.queries.count - first);
    }
    fence_async_proxy_shared();
  }

  // The block's sequence number `number`; n is the number of its first block of keys among those
  // that went by, and then of the next sequence's.
  __device__ void sum_sequence(unsigned number, unsigned& n) const {
    const int steps = own_steps();
    if (thread_index() == 0) {
      load_queries(steps);
      load_keys(n, 0);
    }
    list_tiles(steps);
    mbarrier_wait(&state.queries, number % 2);
    sum_d_out(steps);
    __syncthreads();
    const unsigned seen_of_lane = seen_tiles(steps);
    QueryGradients d_q = {};
#pragma unroll 1
    for (int first_key = 0; first_key < state.task.at.num_keys; first_key += kKeys, ++n) {
      __syncthreads();  // the block of keys before has been read and written
      if (kBlocks == 1 && thread_index() == 0) load_keys(n + 1, first_key + kKeys);
      mbarrier_wait(&tiles.barriers().full[n % kSlots], n / kSlots % 2);
      const unsigned seen = __shfl_sync(~0u, seen_of_lane, first_key / kMmaTile);
      constexpr unsigned kOfGroup = 0x55555555;  // of every other tile
#pragma unroll 1
      for (unsigned left = seen & kOfGroup << group; left != 0; left &= left - 1) {
        weigh_tile(__ffs(static_cast<int>(left)) - 1, n, first_key);
      }
      fence_async_proxy_shared();
      __syncthreads();
      add_d_q(seen, n, d_q);
      sum_keys(seen, n, first_key);
    }
    __syncthreads();
    write_d_q(steps, d_q);
  }
};

#endif

// One sequence in a head of keys after the other for each block, or two of a cluster.
template <int kDim, class Half, Extras kExtras, int kBlocks>
__global__ void __launch_bounds__(kThreads, 1)
    sum_whole_by_wgmma(const __grid_constant__ AttentionBackwardView call, const WorkList work,
                       const __grid_constant__ TokenMaps maps) {
#ifdef SERRATE_WGMMA
  __shared__ SharedState<kDim> state;
  constexpr int kAlignment = 1 << 10;  // of dynamic shared memory
  static_assert(sizeof(state) + kAlignment + ResidentTiles<kDim>::kBytes <= 227 << 10);
  // In uniform registers, as descriptors are.
  const int warp = __shfl_sync(~0u, thread_index() / kLanes, 0);
  const AttentionView& args = call.forward;
  const ResidentWarp<kDim, Half, kExtras, kBlocks> own{
      call,  maps,
      state, {dynamic_shared<unsigned char>()},
      warp,  kBlocks == 1 ? 0 : static_cast<int>(cluster_rank())};
  if (thread_index() == 0) {
    KeyBarriers& barriers = own.tiles.barriers();
    mbarrier_init(&state.queries, 1);
    mbarrier_init(&barriers.ready, 1);
    for (Mbarrier& full : barriers.full) mbarrier_init(&full, 1);
    for (Mbarrier& sent : barriers.sent) mbarrier_init(&sent, 1);
    fence_mbarrier_init();
    if (kBlocks == 2) own.expect_keys(0);
  }
  if (kBlocks == 2) cluster_sync();
  const std::int64_t* const tasks = kBlocks == 1 ? work.resident_wgmma : work.paired_wgmma;
  const TaskNumbers numbers{tasks, TaskNumbers::Rows::kQueries, kMmaTile, args.num_key_heads,
                            heads_per_key_head(args)};
  const std::int64_t end = tasks[batch_size_of(args)];
  unsigned number = 0, n = 0;
  for (std::int64_t index = blockIdx.x / kBlocks; index < end;
       index += gridDim.x / kBlocks, ++number) {
    __syncthreads();  // the sequence before has been written
    if (warp == 0) {
      const WarpTask found = task_at(args, work, numbers, {0, end, end}, index);
      if (lane_index() == 0) {
        state.task = found;
        const GroupTiles queries = own.queries();
        for (int tile = 0; tile < own.own_steps(); ++tile) {
          const int step = tile * kBlocks + own.rank;
          TilePair at = found.at;
          at.head = queries.head(step), at.first_query = queries.first_query(step);
          state.tiles[tile] = at;
        }
      }
    }
    __syncthreads();
    own.sum_sequence(number, n);
  }
  if (kBlocks == 2) cluster_sync();  // nobody reaches a block that has ended
#endif
}

template <int kDim, class Half, Extras kExtras, int kBlocks>
void run(const AttentionBackwardView& call, const WorkList& work, const Stream& stream) {
  const AttentionView& args = call.forward;
  constexpr std::int64_t kBytes = ResidentTiles<kDim>::kBytes;
  const TokenMaps maps{map_of(args.q, args.num_heads, kDim),
                       map_of(call.d_out, args.num_heads, kDim),
                       map_of(args.k, args.num_key_heads, kDim, kKeys),
                       map_of(args.v, args.num_key_heads, kDim, kKeys)};
  launch_warps(
      sum_whole_by_wgmma<kDim, Half, kExtras, kBlocks>,
      {kNumWarps, kBytes, kBytes, batch_size_of(args) * args.num_key_heads * kBlocks, kBlocks},
      stream, call, work, maps);
}

}  // namespace

void sum_resident_by_wgmma(const AttentionBackwardView& call, const WorkList& work,
                           const Stream& stream) {
  with_wgmma(call.forward, [&](auto dim, auto extras, auto row) {
    if constexpr (resident_blocks_of_wgmma(dim()) == 2) {
      run<dim(), decltype(row), extras(), 2>(call, work, stream);
    }
    run<dim(), decltype(row), extras(), 1>(call, work, stream);
  });
}

}  // namespace serrate
