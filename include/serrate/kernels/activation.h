#pragma once

#include <string>

#include "serrate/device_span.h"
#include "serrate/stream.h"

namespace serrate {

/// gelu: x Phi(x), the exact form by erf (Hendrycks & Gimpel 2016); silu: x sigmoid(x).
enum class Activation { kGelu, kRelu, kSilu };

/// "gelu", "relu", "silu"; throws Error (usage) otherwise.
Activation activation_from_string(const std::string& name);
std::string to_string(Activation activation);

/// y = f(x); x and y may be the same memory. Shapes [n, columns].
void activation_forward(Activation f, DeviceMatrix<const float> x, DeviceMatrix<float> y,
                        const Stream& stream);
/// d_x = f'(x) d_y; d_x and d_y may be the same memory.
void activation_backward(Activation f, DeviceMatrix<const float> x, DeviceMatrix<const float> d_y,
                         DeviceMatrix<float> d_x, const Stream& stream);

template <DeviceType D>
void activation_forward_on(Activation, DeviceMatrix<const float>, DeviceMatrix<float>,
                           const Stream&);
template <DeviceType D>
void activation_backward_on(Activation, DeviceMatrix<const float>, DeviceMatrix<const float>,
                            DeviceMatrix<float>, const Stream&);

}  // namespace serrate
