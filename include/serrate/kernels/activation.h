#pragma once

#include <string>

#include "serrate/any_matrix.h"
#include "serrate/device_span.h"
#include "serrate/stream.h"

namespace serrate {

/// gelu: x Phi(x), the exact form by erf (Hendrycks & Gimpel 2016), and gelu_tanh their
/// approximation of it, x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2; silu: x sigmoid(x).
enum class Activation { kGelu, kGeluTanh, kRelu, kSilu };

/// "gelu", "gelu_tanh", "relu", "silu"; throws Error (usage) otherwise.
Activation activation_from_string(const std::string& name);
std::string to_string(Activation activation);

/// y = f(x); x and y may be the same memory. Shapes [n, columns], all of one type.
void activation_forward(Activation f, const InputMatrix& x, const OutputMatrix& y,
                        const Stream& stream);
/// d_x = f'(x) d_y; d_x and d_y may be the same memory.
void activation_backward(Activation f, const InputMatrix& x, const InputMatrix& d_y,
                         const OutputMatrix& d_x, const Stream& stream);

template <DeviceType D>
void activation_forward_on(Activation, const InputMatrix&, const OutputMatrix&, const Stream&);
template <DeviceType D>
void activation_backward_on(Activation, const InputMatrix&, const InputMatrix&, const OutputMatrix&,
                            const Stream&);

}  // namespace serrate
