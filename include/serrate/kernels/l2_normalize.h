#pragma once

#include <span>

#include "serrate/matrix_view.h"
#include "serrate/stream.h"

namespace serrate {

/// Shorter rows are divided by this instead, so that a zero row stays zero.
inline constexpr float kL2NormalizeEps = 1e-6f;

/// y = x / max(|x|, eps) for each row; the |x| in norms [n] are kept for the backward. y may be x.
void l2_normalize_forward(MatrixView<const float> x, MatrixView<float> y, std::span<float> norms,
                          const Stream& stream);
/// d_x from y, norms and d_y; d_x may be d_y.
void l2_normalize_backward(MatrixView<const float> y, std::span<const float> norms,
                           MatrixView<const float> d_y, MatrixView<float> d_x,
                           const Stream& stream);

template <DeviceType D>
void l2_normalize_forward_on(MatrixView<const float>, MatrixView<float>, std::span<float>,
                             const Stream&);
template <DeviceType D>
void l2_normalize_backward_on(MatrixView<const float>, std::span<const float>,
                              MatrixView<const float>, MatrixView<float>, const Stream&);

}  // namespace serrate
