#pragma once

#include <cstdint>
#include <span>
#include <type_traits>

#include "serrate/kernels/attention_mask.h"
#include "serrate/stream.h"

namespace serrate {

/// A strided view of [num_tokens, num_heads, head_dim]; the last axis is contiguous. q, k and v of
/// one packed projection are three such views of one buffer.
template <typename T>
struct HeadsView {
  T* data = nullptr;
  std::int64_t token_stride = 0;
  std::int64_t head_stride = 0;
  T* at(std::int64_t token, std::int64_t head) const {
    return data + token * token_stride + head * head_stride;
  }
  /// A const view of the same tokens.
  operator HeadsView<const T>() const  // NOLINT: implicit, as from span<T> to span<const T>
    requires(!std::is_const_v<T>)
  {
    return {data, token_stride, head_stride};
  }
};

inline constexpr std::int64_t kMaxHeadDim = 256;

/// Softmax attention over jagged sequences (FlashAttention: Dao et al. 2022; jagged: Yang et al.,
/// RecSys'24): sequence s attends queries [query_offsets[s], query_offsets[s+1]) to the keys
/// [key_offsets[s], key_offsets[s+1]). Zero lengths are fine; rows outside the offsets are not
/// touched; a query that sees no key gets output 0, LSE -inf and no gradient. Memory besides the
/// arguments does not depend on lengths: a few tiles a thread, two integers a sequence. A
/// sequence's bits do not depend on the rest of the batch or on the number of threads.
struct AttentionForward {
  HeadsView<const float> q, k, v;
  HeadsView<float> out;
  std::span<float> lse;  ///< [num_heads, num_query_tokens]: log sum exp(scale q.k); empty: not kept
  std::span<const std::int64_t> query_offsets, key_offsets;  ///< [batch_size + 1]
  std::int64_t num_heads = 1;
  std::int64_t head_dim = 64;  ///< 1 to kMaxHeadDim; fastest in whole vectors, multiples of 16
  float scale = 1;
  AttentionMask mask = kCausalMask;
};

struct AttentionBackward {
  AttentionForward forward;  ///< as it was called; out and lse hold its results
  HeadsView<const float> d_out;
  HeadsView<float> d_q, d_k, d_v;  ///< overwritten for the tokens inside the offsets
};

void jagged_attention_forward(const AttentionForward& args, const Stream& stream);
void jagged_attention_backward(const AttentionBackward& args, const Stream& stream);

template <DeviceType D>
void jagged_attention_forward_on(const AttentionForward&, const Stream&);
template <DeviceType D>
void jagged_attention_backward_on(const AttentionBackward&, const Stream&);

}  // namespace serrate
