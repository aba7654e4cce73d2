#pragma once

#include <string>

#include "serrate/device_span.h"
#include "serrate/stream.h"

namespace serrate {

/// What the factors of a product are rounded to first: tf32 has 11 bits of precision, and may be
/// cut off instead of rounded; bf16 has 8, rounded to nearest. Memory, biases and sums are fp32.
/// With u = 0, 2^-10 or 2^-8 an element is within (2 u + u^2) sum |x w| of what fp32 sums to.
enum class Precision { kFp32, kTf32, kBf16 };

/// "fp32", "tf32", "bf16"; throws Error (usage) otherwise.
Precision precision_from_string(const std::string& name);
std::string to_string(Precision precision);

/// y = x w^T + bias, all [rows, columns] row-major; weight is [out_features, in_features].
struct LinearForward {
  DeviceMatrix<const float> x;             ///< [n, in]
  DeviceMatrix<const float> weight;        ///< [out, in]
  DeviceSpan<const float> bias;            ///< [out], or empty
  DeviceMatrix<float> y;                   ///< [n, out]
  Precision precision = Precision::kFp32;  ///< on the CPU nothing else
};

/// d_x = d_y w (unless d_x has no data); d_weight += d_y^T x; d_bias += column sums of d_y.
struct LinearBackward {
  DeviceMatrix<const float> x, weight, d_y;
  DeviceMatrix<float> d_x, d_weight;
  DeviceSpan<float> d_bias;                ///< [out], or empty
  Precision precision = Precision::kFp32;  ///< of d_x and d_weight; d_bias is summed in fp32
};

void linear_forward(const LinearForward& args, const Stream& stream);
void linear_backward(const LinearBackward& args, const Stream& stream);

template <DeviceType D>
void linear_forward_on(const LinearForward&, const Stream&);
template <DeviceType D>
void linear_backward_on(const LinearBackward&, const Stream&);

}  // namespace serrate
