#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <numeric>
#include <span>
#include <vector>

#if SERRATE_WITH_CUDA
#include <cuda_runtime_api.h>
#endif

#include "kernels/attention/cuda/tensor_cores.h"
#include "tests/kernels/attention/biases.h"
#include "tests/kernels/attention/case.h"

// Cases of bfloat16, float16 or, in tf32, float32, which run on tensor cores where there are any.
namespace serrate {

// How far a rounded number may be off, relative to it, and the least of float16 where it is small.
inline double rounding_of(DataType half) {
  return half == DataType::kBFloat16 ? 0x1p-8 : 0x1p-11;
}
// To the 11 bits of tf32, halves away from zero.
inline float in_tf32(float x) {
  int exponent = 0;
  const float fraction = std::frexp(x, &exponent);
  return std::ldexp(std::round(std::ldexp(fraction, 11)), exponent - 11);
}
inline double least_rounding_of(DataType half) {
  return half == DataType::kFloat16 ? 0x1p-25 : 0;
}

// Calls f(pair, score, row of q in [tokens, heads], of k) for every pair that the mask shows.
template <typename F>
void for_each_score(const Case& c, const reference::Attention& args, F&& f) {
  c.for_each_pair(
      [&](std::size_t pair, std::int64_t s, std::int64_t head, std::int64_t i, std::int64_t j) {
        if (!args.visible(s, i, j)) return;
        const std::int64_t group = args.num_heads / args.num_key_heads;
        const std::int64_t query = (c.query_offsets[s] + i) * args.num_heads + head;
        const std::int64_t key = (c.key_offsets[s] + j) * args.num_key_heads + head / group;
        const double* q = args.q.data() + query * args.head_dim;
        const double* k = args.k.data() + key * args.head_dim;
        f(pair,
          args.scale * std::inner_product(q, q + args.head_dim, k, 0.0) +
              (args.bias.empty() ? 0 : args.bias[pair]),
          query, key);
      });
}

// A sum over pairs of |weight * value|: how far rounded weights may be off is their
// rounding of it.
inline std::vector<double> absolute_output(const Case& c, reference::Attention args) {
  for (double& x : args.v) x = std::abs(x);
  if (args.kept.empty()) args.kept.resize(args.num_pairs(), 1);
  for_each_score(c, args, [&](std::size_t pair, double score, std::int64_t, std::int64_t) {
    if (args.silu_divisor != 0 && score < 0) args.kept[pair] *= -1;
  });
  return reference::attention_forward(args).out;
}

// Gradients of the scores, with the sums of d_out * out as they are of the stored out.
inline std::vector<double> score_gradients(Case& c) {
  reference::Attention args = c.in_double();
  args.bias.resize(args.num_pairs());
  const std::vector<double> d_out = c.d_out.dense(), stored = c.out.dense();
  std::vector<double> result = reference::attention_backward(args, d_out).d_bias;
  if (c.shape.activation != AttentionActivation::kSoftmax) return result;
  const reference::AttentionOutput exact = reference::attention_forward(args);
  const std::int64_t tokens = std::ssize(exact.lse) / args.num_heads;
  for_each_score(c, args, [&](std::size_t pair, double score, std::int64_t query, std::int64_t) {
    double change = 0;
    for (std::int64_t i = query * args.head_dim; i < (query + 1) * args.head_dim; ++i) {
      change += d_out[i] * (stored[i] - exact.out[i]);
    }
    const double lse = exact.lse[query % args.num_heads * tokens + query / args.num_heads];
    if (score > -kInfinity) result[pair] -= std::exp(score - lse) * change;
  });
  return result;
}

// Whether the backward of a case is run, where there are tensor cores on them as its forward.
enum class Backward { kOnTensorCores, kNotRun };

#ifdef SERRATE_WITH_SM_90A
inline constexpr bool kIsBuiltForSm90a = true;
#else
inline constexpr bool kIsBuiltForSm90a = false;
#endif

#if SERRATE_WITH_CUDA
inline int device_attribute(const Stream& stream, cudaDeviceAttr which) {
  int value = 0;
  EXPECT_EQ(cudaDeviceGetAttribute(&value, which, stream.device().index), cudaSuccess);
  return value;
}
#endif

// Whether the device and the build have Hopper's own kernels.
inline bool has_wgmma([[maybe_unused]] const Stream& stream) {
#if SERRATE_WITH_CUDA
  return kIsBuiltForSm90a && stream.device().type != DeviceType::kCpu &&
         device_attribute(stream, cudaDevAttrComputeCapabilityMajor) == 9;
#else
  return false;
#endif
}

// Hopper's kernels included, where there are any, for sequences of more than 512 queries or keys;
// 256 at head_dim 256.
inline void expect_tensor_cores([[maybe_unused]] const AttentionBackward& call,
                                const Stream& stream, [[maybe_unused]] Backward backward) {
  if (stream.device().type == DeviceType::kCpu) return;
#if SERRATE_WITH_CUDA
  const AttentionBackwardView view = view_of(call);
  const std::int64_t head_dim = view.forward.head_dim;
  const bool is_tf32 = view.forward.q.type == DataType::kFloat32;
  const int shared_bytes = device_attribute(stream, cudaDevAttrMaxSharedMemoryPerBlockOptin);
  EXPECT_EQ(forward_takes_tensor_cores(view.forward, stream),
            !is_tf32 || head_dim < 128 || shared_bytes >= 163 << 10);
  const bool is_hopper = has_wgmma(stream);
  EXPECT_EQ(longest_take_wgmma(view.forward, stream), head_dim >= 64 && is_hopper && !is_tf32);
  if (backward == Backward::kNotRun) return;
  const bool has_room = is_tf32
                            ? head_dim == 32 || shared_bytes >= (head_dim == 64 ? 163 : 227) << 10
                            : head_dim < 256 || shared_bytes >= 163 << 10;
  EXPECT_EQ(backward_takes_tensor_cores(view, stream), has_room);
  EXPECT_EQ(longest_take_wgmma(view, stream),
            head_dim >= 64 && is_hopper && !is_tf32 && view.forward.num_shared_queries == 0);
#endif
}

// A case's tokens as they are stored, and where a call finds them.
struct StoredCase {
  StoredTokens q, k, v, d_out, out, d_q, d_k, d_v;

  static StoredCase of(Case& c, DataType type) {
    return {{c.q, type},   {c.k, type},   {c.v, type},   {c.d_out, type},
            {c.out, type}, {c.d_q, type}, {c.d_k, type}, {c.d_v, type}};
  }
  AttentionBackward call(Case& c) {
    const Stream& stream = c.streams.stream;
    AttentionBackward call = c.backward_args();
    call.forward.q = q.on(stream), call.forward.k = k.on(stream), call.forward.v = v.on(stream);
    call.forward.out = out.on(stream), call.d_out = d_out.on(stream);
    call.d_q = d_q.on(stream), call.d_k = d_k.on(stream), call.d_v = d_v.on(stream);
    return call;
  }
  void load() {
    for (StoredTokens* x : {&out, &d_q, &d_k, &d_v}) x->load();
  }
};

// The inputs become what tf32 multiplies.
inline void round_to_tf32(Case& c) {
  for (Tokens* x : {&c.q, &c.k, &c.v, &c.d_out}) {
    x->for_each([](float& value, std::int64_t) { value = in_tf32(value); });
  }
}

// Runs a case whose tokens are stored as halves, which they become; float32 becomes what tf32
// multiplies. (Where tensor cores may have no room for it, round_to_tf32 is due before.) `change`
// has the call before it is made.
inline void run_halves(Case& c, Backward backward = Backward::kOnTensorCores,
                       DataType half = DataType::kBFloat16,
                       const std::function<void(AttentionBackward&)>& change = {}) {
  for (Tokens* x : {&c.out, &c.d_q, &c.d_k, &c.d_v}) x->clear();
  StoredCase stored = StoredCase::of(c, half);
  const Stream& stream = c.streams.stream;
  AttentionBackward call = stored.call(c);
  const bool is_tf32 = half == DataType::kFloat32 && stream.device().type != DeviceType::kCpu;
  if (is_tf32) call.forward.precision = Precision::kTf32;
  expect_tensor_cores(call, stream, backward);
  if (change) change(call);
  jagged_attention_forward(call.forward, stream);
  if (backward != Backward::kNotRun) jagged_attention_backward(call, stream);
  stored.load();
  if (is_tf32) round_to_tf32(c);
}

// Holds what the forward made against the reference of what is stored.
inline void expect_output(Case& c, DataType half = DataType::kBFloat16) {
  const double rounding = rounding_of(half);
  const reference::Attention args = c.in_double();
  const reference::AttentionOutput output = reference::attention_forward(args);
  const std::vector<double> absolute = absolute_output(c, args);
  EXPECT_TRUE(c.out.nothing_else_written());
  double worst = 0;
  c.out.for_each([&](float& x, std::int64_t i) {
    const double bound = rounding * (absolute[i] + std::abs(output.out[i])) + 1e-5 * absolute[i] +
                         least_rounding_of(half);
    worst = worse_of(worst, std::abs(x - output.out[i]) - bound);
  });
  EXPECT_LE(worst, 1e-30);
  expect_lse(c, output.lse, 1e-5);
}

// Sums in float32 of gradients of scores, in which nothing is rounded to halves.
inline void expect_close(const std::vector<float>& actual, const std::vector<double>& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  double largest = 0.1, worst = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    largest = std::max(largest, std::abs(expected[i]));
    worst = worse_of(worst, std::abs(actual[i] - expected[i]));
  }
  EXPECT_LE(worst, 1e-5 * largest);
}

// And the gradients of tokens.
inline void expect_gradients(Case& c, DataType half = DataType::kBFloat16) {
  const double rounding = rounding_of(half);
  const reference::AttentionGradients gradients =
      reference::attention_backward(c.in_double(), c.d_out.dense());
  // Gradients have their own rounding, and those of weights and of out.
  expect_close(c.d_q, gradients.d_q, 2 * rounding);
  expect_close(c.d_k, gradients.d_k, 2 * rounding);
  expect_close(c.d_v, gradients.d_v, 2 * rounding);
}

// All of it; gradients of the case's biases, if it has any.
inline void expect_reference(Case& c, Backward backward = Backward::kOnTensorCores,
                             DataType half = DataType::kBFloat16, Biases* biases = nullptr) {
  run_halves(c, backward, half);
  expect_output(c, half);
  if (backward == Backward::kNotRun) return;
  expect_gradients(c, half);
  if (!biases) return;
  const auto of_biases = biases->gradients(c, score_gradients(c));
  expect_close(biases->d_bias.host(), of_biases[0]);
  expect_close(c.d_position_table.host(), of_biases[1]);
  expect_close(c.d_time_table.host(), of_biases[2]);
}

inline const DropoutKey kDropout{.rate = 0.3f, .seed = 5, .step = 2, .site = 3};

inline void set_dropout(Case& c) {
  c.token_ids = ids_of_tokens(c);
  c.dropout = kDropout;
  c.kept_of_pairs = kept_of(c, c.in_double());
}

// ---- bits -----------------------------------------------------------------------------------

inline constexpr Tokens Case::* kInputs[] = {&Case::q, &Case::k, &Case::v, &Case::d_out};
inline constexpr Tokens Case::* kResults[] = {&Case::out, &Case::d_q, &Case::d_k, &Case::d_v};

// Calls f(value of a, value of b) for the tokens of sequence s of one case and t of another.
template <typename F>
void for_each_value(Case& a, std::size_t s, Case& b, std::size_t t, Tokens Case::* which, F&& f) {
  const bool is_of_keys =
      which == &Case::k || which == &Case::v || which == &Case::d_k || which == &Case::d_v;
  const auto offsets = is_of_keys ? &Case::key_offsets : &Case::query_offsets;
  const std::int64_t in_a = (a.*offsets)[s], in_b = (b.*offsets)[t];
  for (std::int64_t i = 0; i < (a.*offsets)[s + 1] - in_a; ++i) {
    for (std::int64_t head = 0; head < (a.*which).num_heads; ++head) {
      const float* of_a = (a.*which).at(in_a + i, head);
      float* of_b = (b.*which).at(in_b + i, head);
      for (std::int64_t column = 0; column < a.shape.head_dim; ++column)
        f(of_a[column], of_b[column]);
    }
  }
}

inline constexpr std::size_t kNoSequence = ~std::size_t{0};

// Runs sequences of a batch that has been run, in this order, one of them full of NaN: all others
// have the bits that they had.
inline void expect_same_sequences(Case& batch, const std::vector<std::size_t>& sequences,
                                  std::size_t all_nan = kNoSequence,
                                  Backward backward = Backward::kOnTensorCores) {
  Shape shape = batch.shape;
  shape.query_lengths.clear(), shape.key_lengths.clear();
  for (const std::size_t s : sequences) {
    shape.query_lengths.push_back(batch.shape.query_lengths[s]);
    shape.key_lengths.push_back(batch.shape.key_lengths[s]);
  }
  Case again(shape, batch.streams);
  again.dropout = batch.dropout;
  if (!batch.token_ids.empty()) again.token_ids.resize(again.query_offsets.back());
  for (std::size_t t = 0; t < sequences.size(); ++t) {
    if (!batch.token_ids.empty()) {
      std::copy_n(batch.token_ids.begin() + batch.query_offsets[sequences[t]],
                  shape.query_lengths[t], again.token_ids.begin() + again.query_offsets[t]);
    }
    for (const auto which : kInputs) {
      for_each_value(batch, sequences[t], again, t, which,
                     [&](float x, float& to) { to = sequences[t] == all_nan ? std::nanf("") : x; });
    }
  }
  const std::size_t results = backward == Backward::kNotRun ? 1 : std::size(kResults);
  run_halves(again, backward);
  for (std::size_t t = 0; t < sequences.size(); ++t) {
    SCOPED_TRACE(sequences[t]);
    std::int64_t different = 0, values = 0;
    for (const auto which : std::span(kResults).first(results)) {
      for_each_value(batch, sequences[t], again, t, which, [&](float x, float y) {
        different += std::bit_cast<std::uint32_t>(x) != std::bit_cast<std::uint32_t>(y);
        ++values;
      });
    }
    EXPECT_EQ(different, sequences[t] == all_nan ? values : 0);
  }
}

// ---- whole sequences -------------------------------------------------------------------------

/// A shape with so many times the heads that, where it has eight pairs of a sequence and a head of
/// keys, blocks take whole sequences. (The simulated device has four multiprocessors.)
inline Shape with_enough_heads([[maybe_unused]] const Stream& stream, Shape shape) {
#if SERRATE_WITH_CUDA
  if (stream.device().type == DeviceType::kCpu) return shape;
  const std::int64_t times = (device_attribute(stream, cudaDevAttrMultiProcessorCount) + 3) / 4;
  shape.num_heads *= times, shape.num_key_heads *= times;
#endif
  return shape;
}

/// Tasks of the forward, of the backward that has a sequence's queries on chip (Hopper's too, in
/// one block and in two), and of decoding. None where a call's plan has no lists.
struct NumTasks {
  std::int64_t forward, resident, resident_wgmma, paired_wgmma, decoding;
};
inline NumTasks tasks_of([[maybe_unused]] const AttentionForward& args,
                         [[maybe_unused]] const Stream& stream) {
#if SERRATE_WITH_CUDA
  const AttentionPlan plan = plan_attention(args, stream);
  if (plan.on_cuda() == nullptr) return {};
  const std::int64_t batch_size = std::ssize(args.key_offsets) - 1;
  const Buffer<std::int64_t>& values = plan.on_cuda()->values;
  const WorkList list = plan.on_cuda()->list(batch_size);
  const std::vector<std::int64_t> host = values.to_host(stream);
  const auto all = [&](const std::int64_t* first_task) {
    return host[first_task - values.device_data() + batch_size];
  };
  return {all(list.forward), all(list.resident), all(list.resident_wgmma), all(list.paired_wgmma),
          all(list.decoding)};
#else
  return {};
#endif
}
inline NumTasks tasks_of(Case& c) {
  AttentionForward args = c.forward_args();
  args.q = {};  // the case's are float32
  return tasks_of(args, c.streams.stream);
}

/// The sequences of a batch in the order in which kernels on tensor cores take them.
inline std::vector<std::int64_t> order_of([[maybe_unused]] Case& c) {
#if SERRATE_WITH_CUDA
  const Stream& stream = c.streams.stream;
  AttentionForward args = c.forward_args();
  args.q = {};  // the case's are float32
  const AttentionPlan plan = plan_attention(args, stream);
  const std::vector<std::int64_t> host = plan.on_cuda()->values.to_host(stream);
  const auto begin = host.begin() + CudaAttentionPlan::kCounts;
  return {begin, begin + std::ssize(c.shape.key_lengths)};
#else
  return {};
#endif
}

/// In a case with sequences of more than 32 queries or keys, a block of the forward takes a whole
/// one, and one of the backward where its queries have room, as they have at head_dim 32.
inline void expect_whole_sequences(Case& c) {
  if (c.streams.stream.device().type == DeviceType::kCpu) return;
  const NumTasks tasks = tasks_of(c);
  const std::int64_t pairs = std::ssize(c.shape.query_lengths) * c.shape.num_key_heads;
  EXPECT_EQ(tasks.forward, pairs);
  EXPECT_TRUE(tasks.resident > 0 || c.shape.head_dim > 32);
}

class TensorCores : public KernelTest {
 protected:
  // Others than Hopper's kernels take too long for it in the widest heads on the simulated device.
  Backward backward_of_long(std::int64_t head_dim) const {
    return head_dim == 256 && !has_wgmma(stream) ? Backward::kNotRun : Backward::kOnTensorCores;
  }
};

}  // namespace serrate
