#pragma once

#include "serrate/matrix_batch.h"
#include "serrate/stream.h"

namespace serrate {

/// The operand of a product that enters it transposed.
enum class Transposed { kNone, kLeft, kRight };

/// A product of matrices for every sample b: z_b = x_b y_b, x_b^T y_b or x_b y_b^T. The products
/// of feature interaction, with FBGEMM's names for them:
///   jagged_dense_bmm            [N_b, D] [D, T] -> [N_b, T]         jagged, dense -> jagged
///   jagged_jagged_bmm           [N_b, D]^T [N_b, T] -> [D, T]       jagged, jagged -> dense
///   jagged_jagged_bmm_jagged_out [M_b, D] [N_b, D]^T -> [M_b, N_b]  jagged, jagged -> pairs
///   array_jagged_bmm_jagged_out [M_b, N_b] [N_b, D] -> [M_b, D]     pairs, jagged -> jagged
/// batched_dense_vec_jagged_2d_mul is, head by head, padded_to_jagged of the vectors, then
/// jagged_jagged_bmm. There is no longest length: sequences take part whole. For FBGEMM's cut to
/// max_seq_len copy them into a jagged batch of shorter ones first (jagged_to_padded; the gradient
/// goes back by padded_to_jagged). A sum over no rows is 0. An element's bits depend on its row of
/// x and its column of y alone.
struct JaggedBmm {
  MatrixBatch<const float> x, y;
  MatrixBatch<float> z;  ///< overwritten; not shared, nor overlapping x or y
  Transposed transposed = Transposed::kNone;
};

/// d_x and d_y (each unless it has no data) from d_z: products of the same kinds.
struct JaggedBmmBackward {
  MatrixBatch<const float> x, y, d_z;
  MatrixBatch<float> d_x, d_y;  ///< overwritten
  Transposed transposed = Transposed::kNone;
};

void jagged_bmm_forward(const JaggedBmm& args, const Stream& stream);
void jagged_bmm_backward(const JaggedBmmBackward& args, const Stream& stream);

template <DeviceType D>
void jagged_bmm_forward_on(const JaggedBmm&, const Stream&);

}  // namespace serrate
