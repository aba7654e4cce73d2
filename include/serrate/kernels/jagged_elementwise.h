#pragma once

#include "serrate/matrix_batch.h"
#include "serrate/stream.h"

namespace serrate {

enum class Elementwise { kAdd, kMultiply };

/// z = x + y or x y, where x is jagged or pairs and y is dense, [batch_size, N, T], or shared, as a
/// mask [N, N] or a bias [N, T] is. y is 0 outside its N rows and T columns: there a sum is x, a
/// product is 0 (FBGEMM's jagged_dense_elementwise_add and _mul, _mul_jagged_out). z may be x.
struct JaggedElementwise {
  Elementwise op = Elementwise::kAdd;
  MatrixBatch<const float> x, y;
  MatrixBatch<float> z;  ///< of the sizes of x
};

/// d_x and d_y (each unless it has no data). d_y is 0 where y meets no x; that of a shared y is
/// a sum over samples in an order that depends on the batch's sizes alone. d_x may be d_z.
struct JaggedElementwiseBackward {
  Elementwise op = Elementwise::kAdd;
  MatrixBatch<const float> x, y;  ///< read for products only
  MatrixBatch<const float> d_z;
  MatrixBatch<float> d_x, d_y;  ///< overwritten
};

void jagged_elementwise_forward(const JaggedElementwise& args, const Stream& stream);
void jagged_elementwise_backward(const JaggedElementwiseBackward& args, const Stream& stream);

template <DeviceType D>
void jagged_elementwise_forward_on(const JaggedElementwise&, const Stream&);
template <DeviceType D>
void jagged_elementwise_backward_on(const JaggedElementwiseBackward&, const Stream&);

}  // namespace serrate
