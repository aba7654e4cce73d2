#pragma once

#include <cstdint>
#include <span>

#include "serrate/device_span.h"
#include "serrate/stream.h"

namespace serrate {

/// The tokens of a sequence model: x[t] = scale * sum over features of pooled[t] + position[p_t].
/// On a GPU there are at most 64 features.
struct TokenEmbeddingForward {
  std::span<const DeviceMatrix<const float>> features;  ///< each [n, dim]
  DeviceMatrix<const float> position;                   ///< [max_length, dim]
  DeviceSpan<const std::int64_t> positions;             ///< [n], in [0, max_length): the caller's
                                                        ///< to see to, on a device nobody looks
  float scale = 1;
  DeviceMatrix<float> x;  ///< [n, dim]
};

/// d_features = scale * d_x, the same for each; d_position[p] += the d_x of its tokens in order.
struct TokenEmbeddingBackward {
  DeviceMatrix<const float> d_x;
  DeviceSpan<const std::int64_t> positions;
  float scale = 1;
  std::span<const DeviceMatrix<float>> d_features;
  DeviceMatrix<float> d_position;
};

void token_embedding_forward(const TokenEmbeddingForward& args, const Stream& stream);
void token_embedding_backward(const TokenEmbeddingBackward& args, const Stream& stream);

template <DeviceType D>
void token_embedding_forward_on(const TokenEmbeddingForward&, const Stream&);
template <DeviceType D>
void token_embedding_backward_on(const TokenEmbeddingBackward&, const Stream&);

}  // namespace serrate
