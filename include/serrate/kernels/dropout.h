#pragma once

#include <cstdint>

#include "serrate/any_matrix.h"
#include "serrate/device_span.h"
#include "serrate/stream.h"

namespace serrate {

/// Which elements are dropped is a function of (seed, step, site, token_ids[row], column) alone,
/// independent of rank, batch order and threads. The backward draws the same bits again.
/// Exactly: columns 4b .. 4b+3 of a row take the four words of
/// philox4x32({token_id's low word, high word, b, site}, {key's low word, high word}) with
/// key = random_bits(seed, RandomUse::kDropout, 0, step); an element is kept when its word is at
/// least floor(rate * 2^32).
struct DropoutKey {
  float rate = 0;  ///< in [0, 1); 0 makes forward and backward plain copies or adds
  std::uint64_t seed = 0;
  std::int64_t step = 0;
  std::uint32_t site = 0;                         ///< which dropout of the model this is
  DeviceSpan<const std::int64_t> token_ids = {};  ///< [n], one id per row of the global batch
};

/// y = residual + x * keep / (1 - rate), residual optional (no data: 0). y may be residual, or an x
/// of its type.
void dropout_forward(const DropoutKey& key, const InputMatrix& x,
                     DeviceMatrix<const float> residual, DeviceMatrix<float> y,
                     const Stream& stream);
/// d_x = d_y * keep / (1 - rate); d_x may be d_y, if of its type. (The residual's gradient is d_y
/// itself.)
void dropout_backward(const DropoutKey& key, DeviceMatrix<const float> d_y, const OutputMatrix& d_x,
                      const Stream& stream);

template <DeviceType D>
void dropout_forward_on(const DropoutKey&, const InputMatrix&, DeviceMatrix<const float>,
                        DeviceMatrix<float>, const Stream&);
template <DeviceType D>
void dropout_backward_on(const DropoutKey&, DeviceMatrix<const float>, const OutputMatrix&,
                         const Stream&);

}  // namespace serrate
