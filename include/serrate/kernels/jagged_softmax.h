#pragma once

#include "serrate/matrix_batch.h"
#include "serrate/stream.h"

namespace serrate {

enum class SoftmaxAxis {
  kRows,     ///< over the rows of a sample, for every column: along the jagged axis
  kColumns,  ///< over the columns, for every row
};

/// z = exp(x - max) / sum over the axis, of every sample by itself: FBGEMM's jagged_softmax (jagged
/// x, kRows) and jagged2_softmax (pairs, kColumns, or kRows if transposed). Where all of x is
/// -infinity z is 0. z may be x.
struct JaggedSoftmax {
  MatrixBatch<const float> x;
  MatrixBatch<float> z;
  SoftmaxAxis axis = SoftmaxAxis::kRows;
};

/// d_x = z (d_z - sum of d_z z over the axis). d_x may be d_z.
struct JaggedSoftmaxBackward {
  MatrixBatch<const float> z, d_z;
  MatrixBatch<float> d_x;
  SoftmaxAxis axis = SoftmaxAxis::kRows;
};

void jagged_softmax_forward(const JaggedSoftmax& args, const Stream& stream);
void jagged_softmax_backward(const JaggedSoftmaxBackward& args, const Stream& stream);

template <DeviceType D>
void jagged_softmax_forward_on(const JaggedSoftmax&, const Stream&);
template <DeviceType D>
void jagged_softmax_backward_on(const JaggedSoftmaxBackward&, const Stream&);

}  // namespace serrate
