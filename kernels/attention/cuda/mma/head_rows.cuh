#pragma once

#include "kernels/attention/view.h"
#include "kernels/cuda/fragments.cuh"

// Rows of heads, between memory and the tiles of a warp.
namespace serrate {

/// The warp begins to copy 16 rows from `token` on; those from `count` on become 0.
template <int kDim, class Half>
__device__ void copy_rows(const InputHeads& from, std::int64_t token, std::int64_t head,
                          std::int64_t count, SwizzledRows<kDim, Half> to, int first_row) {
  constexpr int kChunks = SwizzledRows<kDim, Half>::kChunks;
  const HeadsView<const Half> rows = view_as<Half>(from);
  const uint4 zeros{};
#pragma unroll 1
  for (int i = lane_index(); i < kWarpRows * kChunks; i += 32) {
    const int row = i / kChunks, chunk = i % kChunks;
    Half* const place = to.at(first_row + row, chunk);
    if (row < count) {
      copy_async(place, rows.at(token + row, head) + chunk * kChunkSize<Half>);
    } else {
      *reinterpret_cast<uint4*>(place) = zeros;
    }
  }
}

/// Rounds 16 rows to the type of `to` and writes the first `count` of them, by way of `stage`, rows
/// of shared memory that the warp alone uses.
template <int kDim, class Half>
__device__ void write_rows(const Fragment<kDim / 8>& sums, SwizzledRows<kDim, Half> stage,
                           int first_row, const OutputHeads& to, std::int64_t token,
                           std::int64_t head, std::int64_t count, int lane = lane_index()) {
  constexpr int kChunks = SwizzledRows<kDim, Half>::kChunks;
  __syncwarp();
  stage_rows<kDim, kDim / 8>(sums, stage, first_row, 0, lane);
  __syncwarp();
  const HeadsView<Half> rows = view_as<Half>(to);
#pragma unroll 4
  for (int i = lane; i < kWarpRows * kChunks; i += 32) {
    const int row = i / kChunks, chunk = i % kChunks;
    if (row >= count) break;
    *reinterpret_cast<uint4*>(rows.at(token + row, head) + chunk * kChunkSize<Half>) =
        *reinterpret_cast<const uint4*>(stage.at(first_row + row, chunk));
  }
  __syncwarp();
}

}  // namespace serrate
