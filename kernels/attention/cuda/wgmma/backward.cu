// The backward of long sequences on Hopper (sm_90a), for halves, without atomics: two kernels of
// seven products, which are one with the sides of the scores swapped. At head_dim 256, where
// registers have room for one sum, d_k and d_v have a kernel each: eight products. A block owns 128
// rows, queries with d_out or keys with values, and stays for one task after the other; tiles of 64
// rows of the other side go by. A warpgroup of two owns 64 rows: it multiplies both tensors by
// those of a tile, gradients of weights and scores, with its rows as the rows of its registers,
// which thus are the left side of the products that follow: gradients of scores times keys for d_q;
// weights times d_out for d_v and gradients of scores times queries for d_k. The products of one
// group run while the other's scores become weights. A third warpgroup lists tiles and copies,
// ahead of them and into the next task. The kernel that owns queries is first and writes delta, the
// sum of d_out * out, for the others.
#include "kernels/attention/cuda/launch_tiles.cuh"
#include "kernels/attention/cuda/wgmma/backward_feed.cuh"
#include "kernels/attention/cuda/wgmma/gradients.cuh"
#include "kernels/cuda/warpgroup.cuh"

namespace serrate {
namespace {

using namespace backward_wgmma;

#ifdef SERRATE_WGMMA

// Registers of a thread: each of the 384 begins with 168. Those that list sum deltas.
constexpr int owner_registers(int head_dim, Side side) {
  return head_dim <= 128 && side == Side::kQueries ? 200 : 216;
}
constexpr int other_registers(int head_dim, Side side) {
  return (kGroups + 1) * 168 - kGroups * owner_registers(head_dim, side);
}

// Rows of a tile whose gradients of weights a group has at a time, and of those, whose weights:
// what registers allow beside the sums.
struct RowsAtOnce {
  int gradients, weights;
};
constexpr RowsAtOnce rows_at_once(int head_dim, Sums sums, Extras extras) {
  if (head_dim <= (sums == Sums::kQueries ? 128 : 64) || sums == Sums::kValues) {
    return {kMmaTile, kMmaTile};
  }
  return extras == Extras::kNone ? RowsAtOnce{64, 32} : RowsAtOnce{32, 32};
}

// One of the warps that own rows.
template <int kDim, class Half, Sums kSums, Extras kExtras>
struct OwnerWarp {
  using List = TileList<kOwnerWarps>;
  static constexpr Side kSide = side_of(kSums);
  static constexpr RowsAtOnce kAtOnce = rows_at_once(kDim, kSums, kExtras);
  static constexpr int kRows = kAtOnce.weights, kBlocks = kRows / 8;
  static constexpr int kPieces = pieces_of_tile(kDim), kOfTensor = pieces_of_tensor(kDim);
  static constexpr int kColumns = piece_columns(kDim);
  // Pieces of a tile, the first ones, that products of its sums do not take.
  static constexpr int kEarly = kSums == Sums::kKeysAndValues ? 0 : kOfTensor;
  static constexpr bool kHasGradients = has_score_gradients(kSums),
                        kHasWeights = has_weights(kSums);
  const AttentionBackwardView& call;
  SharedState<kDim, kSums>& state;
  GradientTiles<kDim, kSums> tiles;
  int warp, group = warp / kGroupWarps;

  // d_q or d_k, and d_v.
  struct GroupSums {
    Fragment<kDim / 8> of_gradients = {}, of_weights = {};
  };
  // kRows of weights or of gradients of scores as the left side of a product.
  using Rounded = std::uint32_t[kBlocks / 2][4];

  __device__ void release(Mbarrier* empty) const {
    __syncwarp();
    if (lane_index() == 0) mbarrier_arrive(empty);
  }
  // Pieces of tile t that products took.
  __device__ void release_pieces(unsigned t, int first, int last) const {
    for (int i = first; i < last; ++i) {
      release(&state.pieces.empty[(t * kPieces + i) % state.kPieceSlots]);
    }
  }

  // Calls f(i, piece) for each piece of a tensor in tile t once it is there. The fence comes after
  // the wait: where wgmma follows anything else, ptxas adds one of its own.
  template <class F>
  __device__ void for_each_piece(unsigned t, int tensor, F f) const {
#pragma unroll
    for (int i = 0; i < kOfTensor; ++i) {
      const unsigned p = t * kPieces + first_piece<kDim, kSums>(tensor) + i;
      state.pieces.wait_full(p);
      wgmma_fence();
      f(i, tiles.piece(p));
    }
  }
  // Begins products = the group's rows of a tensor times those of tile t from `row` on.
  template <int kNumBlocks>
  __device__ void begin_products(unsigned n, unsigned t, int tensor, int row,
                                 Fragment<kNumBlocks>& products) const {
    wgmma_keep(accumulators(products));
    for_each_piece(t, tensor, [&](int i, auto* piece) {
      multiply_rows<kColumns, kTypeOf<Half>>(tiles.own(n, tensor, group) + i * kPieceBytes<kDim>,
                                             piece + row * kRowBytes, products,
                                             i == 0 ? WgmmaScale::kOverwrite : WgmmaScale::kAdd);
    });
    wgmma_commit();
  }
  // Begins sums += the transpose of kRows rows of tile t, from `row` on, by their left side.
  __device__ void begin_sums(const Rounded& rounded, unsigned t, int tensor, int row,
                             Fragment<kDim / 8>& sums) const {
    wgmma_keep(accumulators(sums));
    for_each_piece(t, tensor, [&](int i, auto* piece) {
      add_rows<kColumns, Half>(rounded, piece + row * kRowBytes,
                               reinterpret_cast<Fragment<kColumns / 8>&>(sums[i * kColumns / 8]));
    });
    wgmma_commit();
  }

  // Products of kRows rows of a tile, from first_row on, become weights and gradients of scores.
  __device__ void weigh_rows(const Part<kSide>& part, unsigned t, int tile, int first_row,
                             Fragment<kBlocks>& weights, Fragment<kBlocks>& d_scores) const {
    const AttentionView& args = call.forward;
    const int own_row = warp * kWarpRows, first = lane_index() / 4 + own_row;
    const bool is_full = part.list.is_full(tile, group * kGroupWarps, kGroupWarps);
    if constexpr (kSide == Side::kQueries) {
      const int row = (part.first_tile + tile) * kMmaTile + first_row;
      const auto keys = static_cast<int>(std::min<std::int64_t>(part.at.num_keys - row, kRows));
      const QuerySums* const sums = part.own.sums + own_row + lane_index() / 4;
      const QueryLaneTile of_lane{{static_cast<int>(part.at.first_query) + first,
                                   part.own.ranges + own_row, row, keys, is_full},
                                  {sums[0], sums[8]}};
      weigh_pairs<kExtras>(args, part.at, of_lane, weights, d_scores);
    } else {
      const QueryTile& queries = state.others[t % state.kTileSlots];
      const TilePair& at = queries.at;
      const KeyLaneTile of_lane{static_cast<int>(at.first_key) + first,
                                static_cast<int>(at.first_query) + first_row,
                                queries.ranges + first_row, queries.sums + first_row, is_full};
      weigh_pairs<kExtras>(args, at, of_lane, weights, d_scores);
    }
  }

  // kRows of tile t, whose gradients of weights are products under way.
  __device__ void add_rows_of_tile(const Part<kSide>& part, unsigned n, unsigned t, int tile,
                                   int row, Fragment<kBlocks>& gradients, GroupSums& sums) const {
    Fragment<kBlocks> weights = {};
    begin_products(n, t, 0, row, weights);
    wgmma_wait<0>();
    wgmma_keep(accumulators(weights));
    wgmma_keep(accumulators(gradients));
    if (row == kMmaTile - kAtOnce.gradients) release_pieces(t, 0, kEarly);
    weigh_rows(part, t, tile, row, weights, gradients);
    Rounded of_gradients, of_weights;
    if constexpr (kHasGradients) round_weights<Half>(gradients, of_gradients);
    if constexpr (kHasWeights) round_weights<Half>(weights, of_weights);
    if constexpr (kHasGradients) begin_sums(of_gradients, t, 0, row, sums.of_gradients);
    if constexpr (kHasWeights) begin_sums(of_weights, t, 1, row, sums.of_weights);
    wgmma_wait<0>();
    if constexpr (kHasGradients) wgmma_keep(accumulators(sums.of_gradients));
    if constexpr (kHasWeights) wgmma_keep(accumulators(sums.of_weights));
  }

  // Tile t of those that go by, which the group sees.
  __device__ void add_tile(const Part<kSide>& part, unsigned n, unsigned t, int tile,
                           GroupSums& sums) const {
#pragma unroll 1
    for (int first = 0; first < kMmaTile; first += kAtOnce.gradients) {
      Fragment<kAtOnce.gradients / 8> gradients = {};
      if constexpr (kHasGradients) begin_products(n, t, 1, first, gradients);
#pragma unroll
      for (int row = 0; row < kAtOnce.gradients; row += kRows) {
        add_rows_of_tile(part, n, t, tile, first + row,
                         reinterpret_cast<Fragment<kBlocks>&>(gradients[row / 8]), sums);
      }
    }
    release_pieces(t, kEarly, kPieces);
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
  __device__ void write_all(const Part<kSide>& part, unsigned n, GroupSums& sums) const {
    const TilePair& at = part.at;
    const float scale = call.forward.scale;
    named_barrier_sync(1 + group, kGroupWarps * kLanes);
    if constexpr (kSide == Side::kQueries) {
      write(scale, n, 0, sums.of_gradients, call.d_q, at.queries.in_q + at.first_query,
            at.queries.count - at.first_query, at.head);
    } else {
      const std::int64_t first = at.in_keys + at.first_key, count = at.num_keys - at.first_key;
      if constexpr (kHasGradients) {
        write(scale, n, 0, sums.of_gradients, call.d_k, first, count, part.key_head);
      }
      if constexpr (kHasWeights) {
        write(1, n, own_tensors(kSums) - 1, sums.of_weights, call.d_v, first, count, part.key_head);
      }
    }
    fence_async_proxy_shared();
  }

  // Adds all tiles of part n; t is the number of its first one among those that go by, and then of
  // the next part's.
  __device__ void add_part(const Part<kSide>& part, unsigned n, unsigned& t,
                           GroupSums& sums) const {
    state.rows.wait_full(n * kGroups + group);
    for (int head = 0; head < part.heads; ++head) {
      for (int tile = part.list.next(0); tile < List::kTiles;
           tile = part.list.next(tile + 1), ++t) {
        if (part.list.is_seen(tile, group * kGroupWarps, kGroupWarps)) {
          add_tile(part, n, t, tile, sums);
        } else {
          for (int i = 0; i < kPieces; ++i) state.pieces.wait_full(t * kPieces + i);
          release_pieces(t, 0, kPieces);
        }
      }
    }
  }

  __device__ void sum_all() const {
    unsigned n = 0, t = 0;
    for (;;) {
      GroupSums sums;
      for (bool ends = false; !ends; ++n) {
        state.parts.wait_full(n);
        const Part<kSide>& part = state.slots[n % kTaskSlots];
        if (part.is_none) return;
        add_part(part, n, t, sums);
        ends = part.ends;
        if (ends) write_all(part, n, sums);
        release(&state.rows.empty[(n * kGroups + group) % state.kRowSlots]);
        release(&state.parts.empty[n % kTaskSlots]);
      }
    }
  }
};

#endif

template <int kDim, class Half, Sums kSums, Extras kExtras>
__global__ void __launch_bounds__(kBlockWarps* kLanes, 1)
    sum_gradients(const __grid_constant__ AttentionBackwardView call, const WorkList work,
                  Counter* next_task, float* deltas, const __grid_constant__ TokenMaps maps) {
#ifdef SERRATE_WGMMA
  constexpr Side kSide = side_of(kSums);
  __shared__ SharedState<kDim, kSums> state;
  const GradientTiles<kDim, kSums> tiles{dynamic_shared<unsigned char>()};
  // In uniform registers, as descriptors are: the others are all taken.
  const int warp = __shfl_sync(~0u, thread_index() / kLanes, 0);
  if (thread_index() == 0) state.init();
  __syncthreads();
  if (warp < kOwnerWarps) {
    raise_registers<owner_registers(kDim, kSide)>();
    OwnerWarp<kDim, Half, kSums, kExtras>{call, state, tiles, warp}.sum_all();
    return;
  }
  lower_registers<other_registers(kDim, kSide)>();
  if (warp > kOwnerWarps) {
    list_parts<kDim, Half, kSums>(call, work, next_task, deltas, state, warp - kOwnerWarps - 1);
  } else {
    load_parts<kDim, kSums>(call.forward, maps, has_score_gradients(kSums) ? deltas : nullptr,
                            state, tiles);
  }
#endif
}

// What all kernels of a call have in memory of their own.
std::int64_t num_deltas(const AttentionView& args) {
  return args.activation == AttentionActivation::kSoftmax ? std::ssize(args.lse) : 0;
}
constexpr std::int64_t num_kernels(std::int64_t head_dim) {
  return head_dim <= 128 ? 2 : 3;
}

template <int kDim, class Half, Extras kExtras>
void run(const AttentionBackwardView& call, const WorkList& work, const Stream& stream) {
  const AttentionView& args = call.forward;
  auto tasks = Buffer<Counter>::zeros(num_kernels(kDim), stream);
  Buffer<float> deltas(num_deltas(args), stream);
  const TokenMaps maps{
      map_of(args.q, args.num_heads, kDim), map_of(call.d_out, args.num_heads, kDim),
      map_of(args.k, args.num_key_heads, kDim), map_of(args.v, args.num_key_heads, kDim)};
  Counter* next_task = tasks.device_data();
  const auto launch_one = [&]<Sums kSums>(std::integral_constant<Sums, kSums>) {
    constexpr int kBytes = kSharedBytes<kDim, kSums>;
    const auto kernel = sum_gradients<kDim, Half, kSums, kExtras>;
    cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
    launch(kernel, static_cast<unsigned>(processors_of(stream)), dim3(kThreadsX, 4 * kBlockWarps),
           kBytes, stream, call, work, next_task++, deltas.device_data(), maps);
  };
  launch_one(std::integral_constant<Sums, Sums::kQueries>());
  if constexpr (kDim <= 128) {
    launch_one(std::integral_constant<Sums, Sums::kKeysAndValues>());
  } else {
    launch_one(std::integral_constant<Sums, Sums::kKeys>());
    launch_one(std::integral_constant<Sums, Sums::kValues>());
  }
}

}  // namespace

bool longest_take_wgmma(const AttentionBackwardView& call, const Stream& stream) {
  const AttentionView& args = call.forward;
  return longest_take_wgmma(args, stream) && has_map(call.d_out) &&
         may_take_wgmma_backward(args, stream);
}

bool may_take_wgmma_backward(const AttentionView& args, const Stream& stream) {
  return args.head_dim >= 64 && !args.in_tf32 && args.num_shared_queries == 0 && is_hopper(stream);
}

std::int64_t backward_of_longest_workspace(const AttentionBackwardView& call) {
  return num_deltas(call.forward) * static_cast<std::int64_t>(sizeof(float)) +
         num_kernels(call.forward.head_dim) * static_cast<std::int64_t>(sizeof(Counter));
}

void backward_of_longest(const AttentionBackwardView& call, const WorkList& work,
                         const Stream& stream) {
  with_wgmma(call.forward, [&](auto dim, auto extras, auto row) {
    run<dim(), decltype(row), extras()>(call, work, stream);
  });
}

}  // namespace serrate
