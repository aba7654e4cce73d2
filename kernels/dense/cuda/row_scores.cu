// A block has a tile of 64 queries times 64 rows. A score is one chain of multiply-adds in the
// order of columns, whichever tile it is in.
#include "kernels/cuda/product_tile.cuh"
#include "kernels/dense/cuda/row_group.cuh"
#include "serrate/buffer.h"
#include "serrate/kernels/row_scores.h"

namespace serrate {
namespace {

template <int kFours, Access kAccess>
__global__ void __launch_bounds__(kGroupThreads)
    take_row_lengths(Rows<const float> x, float* lengths, std::int64_t num_rows,
                     std::int64_t num_cols) {
  for_each_row(num_rows, num_cols, [&](std::int64_t r, std::int64_t cols) {
    const auto part = RowPart<kFours, kAccess>::load(x.row(r), cols);
    const float squares = sum_of_row(map_row([](float v) { return v * v; }, part));
    if (cols > 0 && threadIdx.x == 0) lengths[r] = fmaxf(sqrtf(squares), 1e-12f);
  });
}

// RowScores as a kernel sees it.
struct Scores {
  Rows<const float> queries, rows;
  const float* lengths;  // of rows, or null
  Rows<float> scores;
  std::int64_t num_queries, num_rows, cols;
};

template <Access kAccess>
__global__ void __launch_bounds__(kTileThreads) score_tile(Scores args) {
  __shared__ __align__(16) SharedTile shared_queries, shared_rows;
  const std::int64_t first_query = std::int64_t{blockIdx.y} * kTile;
  const std::int64_t first_row = std::int64_t{blockIdx.x} * kTile;
  float scores[4][4];
  multiply_rows<kAccess>(tile_rows(args.queries, first_query, args.num_queries, args.cols),
                         tile_rows(args.rows, first_row, args.num_rows, args.cols), shared_queries,
                         shared_rows, scores);
  const std::int64_t r = first_row + threadIdx.x % 16 * 4;
  Four lengths{{1, 1, 1, 1}};
  if (args.lengths) lengths = load_four<Access::kScalars>(args.lengths, r, args.num_rows);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const std::int64_t q = first_query + threadIdx.x / 16 * 4 + i;
    if (q >= args.num_queries) return;
    Four quotients;
#pragma unroll
    for (int j = 0; j < 4; ++j) quotients.value[j] = scores[i][j] / lengths.value[j];
    store_four<kAccess>(quotients, args.scores.row(q), r, args.num_rows);
  }
}

}  // namespace

template <>
void row_scores_on<DeviceType::kCuda>(const RowScores& args, const Stream& stream) {
  const std::int64_t num_queries = args.queries.rows, num_rows = args.rows.rows;
  if (num_queries == 0 || num_rows == 0) return;
  Buffer<float> lengths(args.score_by == ScoreBy::kCosine ? num_rows : 0, stream);
  if (args.score_by == ScoreBy::kCosine) {
    constexpr std::int64_t kMostBlocks = 4096;
    with_row_groups(
        num_rows, args.rows.cols, kMostBlocks,
        [&](auto fours, auto access, const GroupLaunch& shape) {
          launch(take_row_lengths<fours(), access()>, shape.blocks, shape.block, 0, stream,
                 rows_of(args.rows), lengths.device_data(), num_rows, args.rows.cols);
        },
        args.rows);
  }
  const Scores scores{rows_of(args.queries),
                      rows_of(args.rows),
                      lengths.size() > 0 ? lengths.device_data() : nullptr,
                      rows_of(args.scores),
                      num_queries,
                      num_rows,
                      args.queries.cols};
  const dim3 grid(static_cast<unsigned>(num_tiles(num_rows)),
                  static_cast<unsigned>(num_tiles(num_queries)));
  with_access(
      [&](auto access) { launch(score_tile<access()>, grid, kTileThreads, 0, stream, scores); },
      args.queries, args.rows, args.scores);
}

}  // namespace serrate
