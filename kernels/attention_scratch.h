#pragma once

#include <cstdint>

#include "kernels/attention_mask.h"
#include "serrate/kernels/attention.h"

namespace serrate {

// What a thread works in, for the longest head_dim. Scores are [keys, queries].

struct alignas(64) ForwardScratch {
  float scores[kTileKeys * kTileQueries];
  float max[kTileQueries];                // of the scores so far, in units of log 2
  float sum[kTileQueries];                // of 2^(score - max)
  float factor[kTileQueries];             // by which a new max shrinks what was summed before
  float q[kMaxHeadDim * kTileQueries];    // [head_dim, queries], scaled
  float out[kTileQueries * kMaxHeadDim];  // [queries, head_dim in whole vectors]
  float v[kTileKeys * kMaxHeadDim];       // rows of whole vectors, where head_dim is not
  float bias[kTileKeys * kTileQueries];   // transposed
  QueryTileMask query_mask;
  TileMask mask;
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
  float bias[kTileKeys * kTileQueries];  // transposed
  QueryTileMask query_mask;
  TileMask mask;
};

}  // namespace serrate
