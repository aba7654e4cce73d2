// A block has tiles of 64 x 64 of a sample's product: one run of 64 rows of z, and the columns that
// its row of the grid strides over. An element is one chain of multiply-adds in the order of the
// depth, whatever tile it is in.
#include "kernels/cuda/product_tile.cuh"
#include "kernels/jagged/cuda/runs.cuh"
#include "serrate/kernels/jagged_bmm.h"

namespace serrate {
namespace {

// A matrix of x or y as an operand: `depth` is the side that is summed over.
struct Operand {
  Sample<const float> matrix;
  bool depth_is_rows;
  Access access;

  __device__ std::int64_t depth() const { return depth_is_rows ? matrix.rows : matrix.cols; }

  // tile[k][i] = the operand's value at depth begin + k of its row or column first + i.
  __device__ void load(std::int64_t first, std::int64_t begin, SharedTile& tile) const {
    if (access == Access::kVectors) {
      load_by<Access::kVectors>(first, begin, tile);
    } else {
      load_by<Access::kScalars>(first, begin, tile);
    }
  }
  template <Access kAccess>
  __device__ void load_by(std::int64_t first, std::int64_t begin, SharedTile& tile) const {
    if (depth_is_rows) {
      const TileRows rows{matrix.row(begin), matrix.stride, matrix.rows - begin, matrix.cols};
      load_straight<kAccess>(rows, first, tile);
    } else {
      const TileRows rows{matrix.row(first), matrix.stride, matrix.rows - first, matrix.cols};
      load_transposed<kAccess>(rows, begin, tile);
    }
  }
};

// Rows of a tile from begin to end.
struct TileOfZ {
  Sample<float> z;
  std::int64_t begin, end, col;

  // By four columns, as threads have them.
  __device__ void store(const float (&sums)[4][4]) const {
    const std::int64_t c = col + threadIdx.x % 16 * 4;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const std::int64_t r = begin + threadIdx.x / 16 * 4 + i;
      if (r >= end || c >= z.cols) break;
      store_four<Access::kVectors>({sums[i][0], sums[i][1], sums[i][2], sums[i][3]}, z.row(r), c,
                                   z.cols);
    }
  }
  // By single floats, and by way of shared memory, so that lanes side by side write side by side.
  __device__ void store(const float (&sums)[4][4], SharedTile& shared) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const Four four{sums[i][0], sums[i][1], sums[i][2], sums[i][3]};
      *reinterpret_cast<Four*>(&shared[threadIdx.x / 16 * 4 + i][threadIdx.x % 16 * 4]) = four;
    }
    __syncthreads();
#pragma unroll 4
    for (unsigned i = threadIdx.x; i < kTile * kTile; i += kTileThreads) {
      const std::int64_t r = begin + i / kTile, c = col + i % kTile;
      if (r < end && c < z.cols) z.row(r)[c] = shared[i / kTile][i % kTile];
    }
    __syncthreads();
  }
};

struct Product {
  Samples<const float> x, y;
  Samples<float> z;
  Transposed transposed;
  Access of_x, of_y, of_z;

  __device__ void operator()(const Run& run) const {
    __shared__ __align__(16) SharedTile shared_x, shared_y;
    const Operand left{x[run.sample], transposed == Transposed::kLeft, of_x};
    const Operand right{y[run.sample], transposed != Transposed::kRight, of_y};
    const Sample<float> to = z[run.sample];
    const std::int64_t depth = left.depth();
    for (std::int64_t col = std::int64_t{blockIdx.y} * kTile; run.begin < run.end && col < to.cols;
         col += std::int64_t{gridDim.y} * kTile) {
      float sums[4][4] = {};
      for (std::int64_t begin = 0; begin < depth; begin += kTile) {
        left.load(run.begin, begin, shared_x);
        right.load(col, begin, shared_y);
        __syncthreads();
        multiply_tiles(shared_x, shared_y,
                       static_cast<int>(std::min<std::int64_t>(kTile, depth - begin)), sums);
        __syncthreads();
      }
      const TileOfZ tile{to, run.begin, run.end, col};
      if (of_z == Access::kVectors) {
        tile.store(sums);
      } else {
        tile.store(sums, shared_x);
      }
    }
  }
};

template <typename T>
Access access_of(const MatrixBatch<T>& batch) {
  return has_vectors(batch) ? Access::kVectors : Access::kScalars;
}

}  // namespace

template <>
void jagged_bmm_forward_on<DeviceType::kCuda>(const JaggedBmm& args, const Stream& stream) {
  constexpr int kLog2Tile = 6;
  constexpr std::int64_t kUsualTiles = 2, kMostGridRows = 65535;
  static_assert(kTile == 1 << kLog2Tile);
  const std::int64_t tiles = args.z.col_offsets.empty() ? num_tiles(args.z.cols) : kUsualTiles;
  if (tiles == 0) return;
  const Product product{samples_of(args.x), samples_of(args.y), samples_of(args.z), args.transposed,
                        access_of(args.x),  access_of(args.y),  access_of(args.z)};
  launch_runs(product, runs_of_rows(args.z, kLog2Tile), kTileThreads, stream,
              static_cast<unsigned>(std::min(tiles, kMostGridRows)));
}

}  // namespace serrate
