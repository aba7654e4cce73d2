#pragma once

#include <cstdint>

#include "kernels/attention/cpu/rows_ahead.h"
#include "kernels/attention/cpu/tiles.h"
#include "kernels/attention/view.h"

namespace serrate {

// What a thread works in, for the longest head_dim. Scores are [keys, queries].

// The bits of a tile's keys that dropout keeps, as TileMask::bits; the last row is padding.
using KeptBits = std::uint8_t[sizeof(QueryBits)];

// The biases of a position table, by query - key; past the last, what vectors read too much.
using Diagonals = float[kTileQueries + kTileKeys + kMaskBlock];

struct alignas(64) ForwardScratch {
  float scores[kTileKeys * kTileQueries];
  float max[kTileQueries];                // of the scores so far, in units of log 2
  float sum[kTileQueries];                // of 2^(score - max)
  float factor[kTileQueries];             // by which a new max shrinks what was summed before
  float q[kMaxHeadDim * kTileQueries];    // [head_dim, queries], scaled
  float out[kTileQueries * kMaxHeadDim];  // [queries, head_dim in whole vectors]
  float k[kTileKeys * kMaxHeadDim];       // where they are not float32
  float v[kTileKeys * kMaxHeadDim];       // rows of whole vectors, where head_dim is not
  float bias[kTileKeys * kTileQueries];   // transposed
  Diagonals diagonals;
  alignas(16) KeptBits kept[kTileKeys + 1];
  QueryTileMask query_mask;
  TileMask mask;
  RowsAhead ahead;
};

struct alignas(64) BackwardScratch {
  float p[kTileKeys * kTileQueries];
  float d_scores[kTileKeys * kTileQueries];
  float lse[kTileQueries];                             // in units of log 2
  float delta[kTileQueries];                           // sum of d_out * out, scaled
  float q_transposed[kMaxHeadDim * kTileQueries];      // [head_dim, queries], scaled
  float d_out_transposed[kMaxHeadDim * kTileQueries];  // [head_dim, queries], scaled
  float d_q[kTileQueries * kMaxHeadDim];
  // Rows of whole vectors, where head_dim is not.
  float q[kTileQueries * kMaxHeadDim], d_out[kTileQueries * kMaxHeadDim];
  float k[kTileKeys * kMaxHeadDim], d_k[kTileKeys * kMaxHeadDim], d_v[kTileKeys * kMaxHeadDim];
  float v[kTileKeys * kMaxHeadDim];      // where they are not float32
  float bias[kTileKeys * kTileQueries];  // transposed
  Diagonals diagonals;
  alignas(16) KeptBits kept[kTileKeys + 1];
  QueryTileMask query_mask;
  TileMask mask;
  RowsAhead ahead;
};

}  // namespace serrate
