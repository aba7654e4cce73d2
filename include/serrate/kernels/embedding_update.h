#pragma once

#include <cstdint>
#include <span>

#include "serrate/any_matrix.h"
#include "serrate/buffer.h"
#include "serrate/device_span.h"
#include "serrate/embedding_table.h"

namespace serrate {

/// The gradient of a run of bags of one table shard; the shapes of LookupSegment.
struct GradientSegment {
  DeviceSpan<const std::int64_t> indices;  ///< [num_indices]
  DeviceSpan<const std::int64_t> offsets;  ///< [num_bags + 1]
  DeviceSpan<const float> weights;         ///< [num_indices], or empty
  DeviceMatrix<const float> d_output;      ///< [num_bags, dim]
};

/// The occurrences of all segments, grouped by row: a stable sort, so that the occurrences of a
/// row stay in segment order. Owned by the caller and reused from step to step. On a GPU the sorted
/// occurrences are all: the update finds there where rows begin.
struct RowGroups {
  std::int64_t num_occurrences = 0;   ///< over all segments
  Buffer<std::uint64_t> occurrences;  ///< [num_occurrences]: segment and bag; on a GPU also the row
  Buffer<float> weights;              ///< [num_occurrences], or empty when no segment has weights
  Buffer<std::uint64_t> scratch;      ///< the sort's own,
  Buffer<float> scratch_weights;      ///< and on a GPU that of weights

  /// On a CPU alone, with room for num_occurrences (+ 1) values:
  Buffer<std::int64_t> num_rows;     ///< [1]
  Buffer<std::int64_t> rows;         ///< [num_rows], ascending
  Buffer<std::int64_t> row_offsets;  ///< [num_rows + 1] into occurrences and weights

  /// Bytes of the memory held.
  std::int64_t bytes() const;
};

/// Which random numbers round the changed rows of a fp16 or bf16 table: up or down, so that the
/// mean is what fp32 has (stochastic rounding, as FBGEMM's). They are a function of these, of the
/// step, and of row and column in the whole table, so that the cut into shards changes no bit.
struct TableRounding {
  std::uint64_t seed = 0;
  /// A number, such as a hash of its name; tables with the same one share random numbers.
  std::uint32_t table = 0;
  std::int64_t row_begin = 0, column_begin = 0;  ///< of the shard; fastest at multiples of 4
};

struct EmbeddingUpdate {
  OutputMatrix table;  ///< [num_rows, dim]; state is fp32 whatever its type
  /// adagrad: [num_rows, dim]; row_wise_adagrad: [num_rows, 1]; adam: first moment; sgd: empty
  DeviceMatrix<float> state;
  DeviceMatrix<float> second_moment;  ///< adam alone: [num_rows, dim]
  std::span<const GradientSegment> segments;
  SparseOptimizerOptions optimizer;
  std::int64_t step = 0;  ///< from 1: for adam's bias correction and for `rounding`
  TableRounding rounding = {};
};

/// Groups the occurrences of segments whose d_output need not be there yet.
void group_gradients(std::span<const GradientSegment> segments, std::int64_t num_rows,
                     RowGroups& groups, const Stream& stream);

/// Columns [begin, end) of a shard.
struct ColumnRange {
  std::int64_t begin = 0, end = 0;
};

/// squares[k][o] = sum over columns[k] of g^2, g the gradient of the row whose first occurrence is
/// number o of the groups, by a binary tree over those columns (src/core/sum_tree.h; on a GPU, in
/// an order of its own); of other o it keeps what is there. Each squares[k] has num_occurrences
/// values. Column-wise shards add these up before a row-wise Adagrad step.
void gradient_row_squares(const EmbeddingUpdate& args, const RowGroups& groups,
                          std::span<const ColumnRange> columns, DeviceSpan<float> squares,
                          const Stream& stream);

/// Applies the optimizer to every row of the groups, once, with the sum of the row's gradients in
/// occurrence order: deterministic for any number of threads. `row_squares` (as above, of the whole
/// row) and `full_dim` are given by column-wise shards for row-wise Adagrad; otherwise empty and 0.
void embedding_update(const EmbeddingUpdate& args, const RowGroups& groups,
                      DeviceSpan<const float> row_squares, std::int64_t full_dim,
                      const Stream& stream);

template <DeviceType D>
void group_gradients_on(std::span<const GradientSegment>, std::int64_t num_rows, RowGroups&,
                        const Stream&);
template <DeviceType D>
void gradient_row_squares_on(const EmbeddingUpdate&, const RowGroups&,
                             std::span<const ColumnRange> columns, DeviceSpan<float>,
                             const Stream&);
template <DeviceType D>
void embedding_update_on(const EmbeddingUpdate&, const RowGroups&, DeviceSpan<const float>,
                         std::int64_t full_dim, const Stream&);

}  // namespace serrate
