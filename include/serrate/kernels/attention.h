#pragma once

#include <cstdint>
#include <type_traits>

#include "serrate/data_type.h"
#include "serrate/device_span.h"
#include "serrate/kernels/attention_mask.h"
#include "serrate/kernels/attention_plan.h"
#include "serrate/kernels/dropout.h"
#include "serrate/kernels/linear.h"
#include "serrate/stream.h"

namespace serrate {

/// Strided [num_tokens, num_heads, head_dim] in the memory of a device; the last axis is
/// contiguous. q, k and v of one packed projection are three of one buffer. Strides are in
/// elements.
template <typename T>
struct DeviceHeads {
  T* device_data = nullptr;  ///< as DeviceSpan::device_data()
  std::int64_t token_stride = 0;
  std::int64_t head_stride = 0;
};

/// DeviceHeads of float32, bfloat16 or float16; for gradients and outputs without const. Arithmetic
/// is in float32. CUDA's tensor cores, though, multiply bfloat16 or float16 tokens by weights and
/// gradients of scores that are rounded to their type; they take head_dim 32, 64, 128 and 256 where
/// device_data is aligned to 16 bytes and strides are multiples of 8. In tf32
/// (AttentionForward::precision) they take float32 tokens too, as shared memory allows, with
/// strides that are multiples of 4; sequences that decode keep float32 products. What is beyond the
/// range of float16 becomes infinite, never the largest number.
template <typename Void>
struct AnyHeads {
  static_assert(std::is_void_v<Void>);

  Void* device_data = nullptr;
  DataType type = DataType::kFloat32;
  std::int64_t token_stride = 0;
  std::int64_t head_stride = 0;

  constexpr AnyHeads() = default;
  template <typename T>
    requires std::is_convertible_v<T*, Void*>
  constexpr AnyHeads(const DeviceHeads<T>& heads)  // NOLINT: implicit
      : device_data(heads.device_data),
        type(data_type_of<T>()),
        token_stride(heads.token_stride),
        head_stride(heads.head_stride) {}
  /// The same tokens, const.
  template <typename OtherVoid>
    requires(std::is_const_v<Void> && !std::is_const_v<OtherVoid>)
  constexpr AnyHeads(const AnyHeads<OtherVoid>& heads)  // NOLINT: implicit
      : device_data(heads.device_data),
        type(heads.type),
        token_stride(heads.token_stride),
        head_stride(heads.head_stride) {}
};
using InputHeads = AnyHeads<const void>;
using OutputHeads = AnyHeads<void>;

inline constexpr std::int64_t kMaxHeadDim = 256;

/// What becomes of a score before it weighs a value.
enum class AttentionActivation {
  kSoftmax,
  kSilu,  ///< x / (1 + e^-x) / silu_divisor: HSTU (Zhai et al., ICML'24)
};

/// A block of values added to scale q.k: that of query i, key j of sequence s, counted from its
/// first ones, in head h is data[s * sequence_stride + h * head_stride + i * query_stride + j *
/// key_stride]. One of the last two strides is 1; a stride of 0 shares the block.
struct AttentionBias {
  DeviceSpan<const float> data = {};  ///< from the place of the first pair on; empty: none
  std::int64_t sequence_stride = 0, head_stride = 0, query_stride = 0, key_stride = 1;
};

/// A bias by distance, gathered from a learned table: that of a pair is entry n if n of the rising
/// `boundaries` are <= its distance.
struct AttentionTable {
  DeviceSpan<const float> values = {};  ///< [num_heads or 1, boundaries + 1]; empty: none
  DeviceSpan<const std::int64_t> boundaries = {};
};

/// Attention over jagged sequences (FlashAttention: Dao et al. 2022; jagged: Yang et al.,
/// RecSys'24): sequence s attends queries [query_offsets[s], query_offsets[s+1]) to the keys
/// [key_offsets[s], key_offsets[s+1]). Zero lengths are fine; rows outside the offsets are not
/// touched; a query that sees no key gets output 0, LSE -inf and no gradient. Memory besides the
/// arguments: the plan, a few tiles a thread, the forward's partials. A sequence's bits do not
/// depend on the rest of the batch or on the number of threads.
struct AttentionForward {
  InputHeads q, k, v;
  OutputHeads out;
  /// [num_heads, num_query_tokens]: log sum exp of what softmax is taken of; empty: not kept. Not
  /// written without softmax.
  DeviceSpan<float> lse;
  DeviceSpan<const std::int64_t> query_offsets, key_offsets;  ///< [batch_size + 1]
  /// Above 0, every sequence has the same queries, the first of q, and no query_offsets: query i
  /// of sequence s is token s * num_shared_queries + i of out, lse and d_out, and token i of q.
  std::int64_t num_shared_queries = 0;
  std::int64_t num_heads = 1;
  /// A divisor of num_heads: so many consecutive heads share one of k's and v's. 0: num_heads.
  std::int64_t num_key_heads = 0;
  /// 1 to kMaxHeadDim; fastest in whole vectors, multiples of 16, and on CUDA as AnyHeads says.
  std::int64_t head_dim = 64;
  /// kTf32, for float32 tokens alone: CUDA may multiply them on tensor cores, rounded to 11 bits,
  /// as AnyHeads says; the CPU has no such products. Otherwise products of float32 tokens are in
  /// float32, and kBf16 is as kFp32: the tokens' type says what they are stored in.
  Precision precision = Precision::kFp32;
  float scale = 1;                   ///< of q.k; 1 / sqrt(head_dim) is not implied
  AttentionMask mask = kCausalMask;  ///< for cross-attention and shared queries mostly FullMask
  AttentionActivation activation = AttentionActivation::kSoftmax;
  float silu_divisor = 1;
  AttentionBias bias = {};
  /// By i - j for query i and key j of a sequence (T5: Raffel et al. 2020).
  AttentionTable position_table = {};
  /// By query_times - key_times (HSTU's relative time bias).
  AttentionTable time_table = {};
  DeviceSpan<const std::int64_t> query_times = {}, key_times = {};  ///< of every token
  /// Drops weights: key j takes word j % 4 of philox4x32({token_id's low word, high word, j / 4,
  /// site + 2^16 head}, key), token_ids[i] being that of row i of out, and key and threshold as
  /// DropoutKey says; site < 2^16.
  DropoutKey dropout = {};
  /// From plan_attention for these offsets, heads, options and mask; outlives the call. Null: the
  /// call makes its own. The same bits.
  const AttentionPlan* plan = nullptr;
  /// Workspace for long histories, which are cut into chunks that tasks share: the plan's
  /// num_partials() or more. Empty: the call allocates them. The same bits.
  DeviceSpan<float> partials = {};
};

struct AttentionBackward {
  AttentionForward forward;  ///< as it was called; out and lse hold its results
  InputHeads d_out;
  /// Overwritten for the tokens inside the offsets. d_q of shared queries is summed over the batch,
  /// in its order.
  OutputHeads d_q, d_k, d_v;
  /// With the strides of the bias: what every visible pair adds to it is added, in a fixed order.
  /// No gradient if empty. Where sequences or heads share a block, threads share its queries; for
  /// sequences CUDA's tensor cores have sums of runs of them in workspace, 2^20 floats at most.
  DeviceSpan<float> d_bias = {};
  /// Gradients of the tables, likewise added to; empty: no gradient. The workspace has as much for
  /// every sequence and head. On CUDA's tensor cores it has as much for up to 256 blocks a head,
  /// whatever the batch, and nine times that if both have more than 384 entries together: 2^22
  /// floats, or those of a block a head if they are more.
  DeviceSpan<float> d_position_table = {}, d_time_table = {};
};

/// How a batch's attention is shared among the threads of `stream`, for all calls with its offsets,
/// heads, head_dim, precision, options and mask: every layer, forward and backward. Of `args` the
/// tokens, lse and partials need not be there, as a plan is for tokens of any type. The offsets and
/// the mask's arrays are to stay as they are.
AttentionPlan plan_attention(const AttentionForward& args, const Stream& stream);

/// Both throw Error, before anything is written, if an argument is missing, of another size than
/// it has to be, or not finite; what is in q, k, v and biases is not looked at. What only the
/// values of offsets, masks and boundaries tell is checked where the host can read them: on the
/// CPU.
void jagged_attention_forward(const AttentionForward& args, const Stream& stream);
void jagged_attention_backward(const AttentionBackward& args, const Stream& stream);

/// The most bytes that a call allocates from the stream while it runs, besides its plan.
std::int64_t jagged_attention_forward_workspace(const AttentionForward& args, const Stream& stream);
std::int64_t jagged_attention_backward_workspace(const AttentionBackward& args,
                                                 const Stream& stream);

template <DeviceType D>
AttentionPlan plan_attention_on(const AttentionForward&, const Stream&);
template <DeviceType D>
void jagged_attention_forward_on(const AttentionForward&, const Stream&);
template <DeviceType D>
void jagged_attention_backward_on(const AttentionBackward&, const Stream&);
template <DeviceType D>
std::int64_t jagged_attention_forward_workspace_on(const AttentionForward&, const Stream&);
template <DeviceType D>
std::int64_t jagged_attention_backward_workspace_on(const AttentionBackward&, const Stream&);

}  // namespace serrate
