#pragma once

#include <string>

#include "serrate/any_matrix.h"
#include "serrate/device_span.h"
#include "serrate/stream.h"

namespace serrate {

/// Types of products. tf32: factors are float32, of which 11 bits count and may be cut instead of
/// rounded; with u = 2^-10 an element is within (2 u + u^2) sum |x w| of what fp32 sums to. bf16:
/// factors are stored in bfloat16, which has 8 bits, and so is what comes of them but gradients of
/// parameters, rounded to nearest (by 2^-8 of itself). Sums are fp32.
enum class Precision { kFp32, kTf32, kBf16 };

/// "fp32", "tf32", "bf16"; throws Error (usage) otherwise.
Precision precision_from_string(const std::string& name);
std::string to_string(Precision precision);

/// y = x w^T + bias, all [rows, columns] row-major; weight is [out_features, in_features]. All are
/// bfloat16 with kBf16, else float32. A bias of bfloat16 is aligned to 16 bytes.
struct LinearForward {
  InputMatrix x;                           ///< [n, in]
  InputMatrix weight;                      ///< [out, in]
  InputMatrix bias;                        ///< [1, out], or no columns
  OutputMatrix y;                          ///< [n, out]
  Precision precision = Precision::kFp32;  ///< on the CPU nothing else
};

/// d_x = d_y w (unless d_x has no data); d_weight += d_y^T x; d_bias += column sums of d_y. The
/// first four are bfloat16 with kBf16, else float32.
struct LinearBackward {
  InputMatrix x, weight, d_y;
  OutputMatrix d_x;
  DeviceMatrix<float> d_weight;
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
