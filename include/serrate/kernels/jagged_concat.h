#pragma once

#include <cstdint>

#include "serrate/device_span.h"
#include "serrate/matrix_batch.h"
#include "serrate/stream.h"

namespace serrate {

/// z_b = the rows of x_b, then those of y_b. With a dense x of one row a sample it prepends that
/// row (FBGEMM's dense_jagged_cat_jagged_out). The backward is jagged_split of d_z.
void jagged_concat(const MatrixBatch<const float>& x, const MatrixBatch<const float>& y,
                   const MatrixBatch<float>& z, const Stream& stream);

/// The way back: x_b is the first rows of z_b and y_b the others. The backward is jagged_concat.
void jagged_split(const MatrixBatch<const float>& z, const MatrixBatch<float>& x,
                  const MatrixBatch<float>& y, const Stream& stream);

/// The offsets, from 0, of jagged_concat(x, y) [batch_size + 1]; no value is read.
void jagged_concat_offsets(const MatrixBatch<const float>& x, const MatrixBatch<const float>& y,
                           DeviceSpan<std::int64_t> offsets, const Stream& stream);

template <DeviceType D>
void jagged_concat_on(const MatrixBatch<const float>&, const MatrixBatch<const float>&,
                      const MatrixBatch<float>&, const Stream&);
template <DeviceType D>
void jagged_split_on(const MatrixBatch<const float>&, const MatrixBatch<float>&,
                     const MatrixBatch<float>&, const Stream&);
template <DeviceType D>
void jagged_concat_offsets_on(const MatrixBatch<const float>&, const MatrixBatch<const float>&,
                              DeviceSpan<std::int64_t>, const Stream&);

}  // namespace serrate
