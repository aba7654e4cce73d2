#pragma once

#include "serrate/matrix_batch.h"
#include "serrate/stream.h"

namespace serrate {

/// Sequences into [batch_size, N, D], pairs into [batch_size, N, N] (FBGEMM's
/// jagged_to_padded_dense, jagged_1d_to_dense with D = 1, jagged2_to_padded_dense). A sample longer
/// than N is cut to its first min(len, N) rows, or rows and columns; what it does not fill is
/// padding_value. `padded` may be jagged or pairs too, with lengths of its own, to cut sequences.
/// The backward is padded_to_jagged.
void jagged_to_padded(const MatrixBatch<const float>& jagged, float padding_value,
                      const MatrixBatch<float>& padded, const Stream& stream);

/// The way back (FBGEMM's dense_to_jagged); rows and columns from N on are 0. The backward is
/// jagged_to_padded with padding 0.
void padded_to_jagged(const MatrixBatch<const float>& padded, const MatrixBatch<float>& jagged,
                      const Stream& stream);

/// Copies of every sample what both have, and puts `fill` in the rest of `to`.
template <DeviceType D>
void copy_samples_on(const MatrixBatch<const float>& from, float fill, const MatrixBatch<float>& to,
                     const Stream&);

}  // namespace serrate
