#pragma once

#include <cstdint>

#include "serrate/device_span.h"
#include "serrate/float8.h"
#include "serrate/kernels/attention.h"
#include "serrate/stream.h"

// Attention over queries, keys and values of 8 bits, for inference (FlashAttention-3: Shah et al.
// 2024): quantize_heads makes them, once for what many calls read; jagged_attention_fp8_forward
// attends. On CUDA both need compute capability 8.9 or higher and a build for it. head_dim is 64,
// 128 or 256.
namespace serrate {

/// Rows of a sequence in one head that share a scale, counted from the sequence's first; the last
/// ones may be fewer.
inline constexpr std::int64_t kFp8Block = 64;

/// How many e4m3, in rows of head_dim each that follow one another, a query is the sum of. One of
/// 64 columns is two, as outliers make its scores so large that rounding it once is felt.
constexpr std::int64_t fp8_terms_of_queries(std::int64_t head_dim) {
  return head_dim == 64 ? 2 : 1;
}

/// [num_tokens, num_heads, terms, head_dim]: a value is the sum of its e4m3 times the scale of its
/// block; keys and values have one term. Rows, of terms * head_dim values, begin at multiples of 16
/// bytes and do not overlap.
struct Fp8Heads {
  DeviceHeads<Float8> values;
  /// [num_heads, num_fp8_scales a head or more]: that of block b of sequence s in a head's is at
  /// (offsets[s] - offsets[0]) / kFp8Block + s + b. Others are not touched.
  DeviceSpan<float> scales;
};

/// How many scales there are of `num_tokens` tokens, inside the offsets of a batch.
constexpr std::int64_t num_fp8_scales(std::int64_t num_tokens, std::int64_t batch_size,
                                      std::int64_t num_heads) {
  return num_heads * (num_tokens / kFp8Block + batch_size);
}

/// What becomes of rows before they are rounded. Both sides of a product of rows are rotated, or
/// neither is: q and k, or none.
enum class HeadRotation {
  kNone,
  /// x D H / sqrt(head_dim), with Sylvester's Hadamard matrix H and fixed signs D: spreads what is
  /// large in a few columns over all.
  kHadamard,
};

/// quantized = heads, as e4m3 with scales: the largest finite magnitude of a block / 448; 0 for a
/// block that has none above 2^-100. An infinity becomes NaN, which a NaN stays, where it is and,
/// with a rotation, in all of its row; neither counts for the scale. A sequence's bits do not
/// depend on the rest of the batch, and are the same on all devices. Of two terms, the second is
/// what rounding left of the first.
struct QuantizeHeads {
  InputHeads heads;  ///< float32 or bfloat16; rows begin at multiples of 16 bytes
  Fp8Heads quantized;
  /// [batch_size + 1]: the query_offsets or key_offsets of the forward; {0, num_shared_queries} for
  /// shared queries.
  DeviceSpan<const std::int64_t> offsets;
  std::int64_t num_heads = 1;
  std::int64_t head_dim = 64;
  std::int64_t terms = 1;  ///< fp8_terms_of_queries(head_dim) of queries
  HeadRotation rotation = HeadRotation::kNone;
};
void quantize_heads(const QuantizeHeads& args, const Stream& stream);

/// Softmax attention, as jagged_attention_forward has it, of what q, k and v stand for. On CUDA
/// products are of e4m3 on tensor cores, weights being rounded to it, and sums are float32; on the
/// CPU it is float32 attention of the values, which need as much memory as float32 tokens.
struct AttentionFp8Forward {
  Fp8Heads q, k, v;
  /// All but q, k and v, which it has none of. Without SiLU, biases, tables, dropout, ColumnMask
  /// and BlockMask. out is float32 or bfloat16; its rows begin at multiples of 16 bytes. On CUDA,
  /// where queries and keys have offsets of their own, the call makes a plan instead of the one
  /// here, whose list leaves out sequences that decode in 16 bits.
  AttentionForward attention;
};
void jagged_attention_fp8_forward(const AttentionFp8Forward& args, const Stream& stream);

/// The most bytes that a call allocates from the stream while it runs, besides its plan.
std::int64_t jagged_attention_fp8_forward_workspace(const AttentionFp8Forward& args,
                                                    const Stream& stream);

template <DeviceType D>
void quantize_heads_on(const QuantizeHeads&, const Stream&);
template <DeviceType D>
void jagged_attention_fp8_forward_on(const AttentionFp8Forward&, const Stream&);
template <DeviceType D>
std::int64_t jagged_attention_fp8_forward_workspace_on(const AttentionFp8Forward&, const Stream&);

}  // namespace serrate
