#pragma once

#include <string>

#include "serrate/matrix_view.h"
#include "serrate/stream.h"

namespace serrate {

/// gelu: x Phi(x), the exact form by erf (Hendrycks & Gimpel 2016); silu: x sigmoid(x).
enum class Activation { kGelu, kRelu, kSilu };

/// "gelu", "relu", "silu"; throws Error (usage) otherwise.
Activation activation_from_string(const std::string& name);
std::string to_string(Activation activation);

/// y = f(x); x and y may be the same memory. Shapes [n, columns].
void activation_forward(Activation f, MatrixView<const float> x, MatrixView<float> y,
                        const Stream& stream);
/// d_x = f'(x) d_y; d_x and d_y may be the same memory.
void activation_backward(Activation f, MatrixView<const float> x, MatrixView<const float> d_y,
                         MatrixView<float> d_x, const Stream& stream);

template <DeviceType D>
void activation_forward_on(Activation, MatrixView<const float>, MatrixView<float>, const Stream&);
template <DeviceType D>
void activation_backward_on(Activation, MatrixView<const float>, MatrixView<const float>,
                            MatrixView<float>, const Stream&);

}  // namespace serrate
