#pragma once

#include <cstdint>

#include "kernels/attention/cuda/scores.cuh"
#include "kernels/attention/cuda/tile.cuh"
#include "kernels/cuda/primitives.cuh"

// A pair of tiles as both kernels of the backward see it.
namespace serrate {

/// AttentionBackwardView and the workspace.
struct Call {
  AttentionBackwardView args;
  float* deltas;  // as lse: of every query, the sum of d_out * out
  // Gradients of the tables, [batch_size, num_heads, entries]; null: none.
  float *d_position, *d_time;
};

/// Shared memory of a block; entries are those of a table for a tile of scores. `sum`, behind the
/// other tiles, is there for shared queries alone.
template <class Shape>
struct Tiles {
  static constexpr int kSize = 4 * Shape::kRowsSize + 3 * Shape::kScoresSize;
  float *q, *k, *v, *d_out, *weights, *d_scores;
  int* entries;
  float* sum;

  __device__ Tiles()
      : q(dynamic_shared<float>()),
        k(q + Shape::kRowsSize),
        v(k + Shape::kRowsSize),
        d_out(v + Shape::kRowsSize),
        weights(d_out + Shape::kRowsSize),
        d_scores(weights + Shape::kScoresSize),
        entries(reinterpret_cast<int*>(d_scores + Shape::kScoresSize)),
        sum(q + kSize) {}
};

template <class Shape>
__device__ void load_queries(const AttentionBackwardView& args, const TilePair& at,
                             const Tiles<Shape>& tiles) {
  const std::int64_t count = at.queries.count - at.first_query;
  const int head_dim = static_cast<int>(args.forward.head_dim);
  load_rows<Shape>(args.forward.q, at.queries.in_q + at.first_query, at.head, count, head_dim,
                   tiles.q);
  load_rows<Shape>(args.d_out, at.queries.in_out + at.first_query, at.head, count, head_dim,
                   tiles.d_out);
}

template <class Shape>
__device__ void load_keys(const AttentionView& args, const TilePair& at,
                          const Tiles<Shape>& tiles) {
  const std::int64_t token = at.in_keys + at.first_key, count = at.num_keys - at.first_key;
  const std::int64_t key_head = at.head / heads_per_key_head(args);
  const int head_dim = static_cast<int>(args.head_dim);
  load_rows<Shape>(args.k, token, key_head, count, head_dim, tiles.k);
  load_rows<Shape>(args.v, token, key_head, count, head_dim, tiles.v);
}

/// The weights and the gradients of the scores of a pair of tiles, which are in shared memory.
template <class Shape>
__device__ __forceinline__ void score_gradients(const AttentionView& args, const TilePair& at,
                                                unsigned visible,
                                                const QuerySums (&sums)[Shape::kRows],
                                                const Tiles<Shape>& tiles, Scores<Shape>& weights,
                                                Scores<Shape>& d_scores) {
  // A thread whose pairs are all hidden has nothing to multiply.
  const int columns = visible == 0 ? 0 : static_cast<int>(args.head_dim);
  multiply<Shape>(tiles.q, tiles.k, columns, weights);
  finish_scores<Shape>(args, at, visible, weights);
  multiply<Shape>(tiles.d_out, tiles.v, columns, d_scores);
  weights_and_gradients<Shape>(args, visible, kept_pairs<Shape>(args, at), sums, weights, d_scores);
}

}  // namespace serrate
