#pragma once

#include "serrate/device_span.h"
#include "serrate/stream.h"

namespace serrate {

/// Shorter rows are divided by this instead, so that a zero row stays zero.
inline constexpr float kL2NormalizeEps = 1e-6f;

/// y = x / max(|x|, eps) for each row; the |x| in norms [n] are kept for the backward. y may be x.
/// On a GPU rows have at most 4,096 columns.
void l2_normalize_forward(DeviceMatrix<const float> x, DeviceMatrix<float> y,
                          DeviceSpan<float> norms, const Stream& stream);
/// d_x from y, norms and d_y; d_x may be d_y.
void l2_normalize_backward(DeviceMatrix<const float> y, DeviceSpan<const float> norms,
                           DeviceMatrix<const float> d_y, DeviceMatrix<float> d_x,
                           const Stream& stream);

template <DeviceType D>
void l2_normalize_forward_on(DeviceMatrix<const float>, DeviceMatrix<float>, DeviceSpan<float>,
                             const Stream&);
template <DeviceType D>
void l2_normalize_backward_on(DeviceMatrix<const float>, DeviceSpan<const float>,
                              DeviceMatrix<const float>, DeviceMatrix<float>, const Stream&);

}  // namespace serrate
