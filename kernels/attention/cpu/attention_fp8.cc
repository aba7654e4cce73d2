// Blocks of rows are rotated by butterflies, scaled and rounded, each by one thread; the forward is
// that of float32.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>

#include "kernels/attention/fp8.h"
#include "kernels/attention/require.h"
#include "kernels/attention/view.h"
#include "serrate/buffer.h"

namespace serrate {
namespace {

// Calls f(first token, number of tokens, head, its scale's place in the head's) for all blocks.
template <typename F>
void for_each_block(std::span<const std::int64_t> offsets, std::int64_t num_heads,
                    const Stream& stream, F&& f) {
  const std::int64_t tasks = (std::ssize(offsets) - 1) * num_heads;
#pragma omp parallel for schedule(dynamic) num_threads(stream.num_threads())
  for (std::int64_t task = 0; task < tasks; ++task) {
    const std::int64_t s = task / num_heads;
    std::int64_t block = first_fp8_block(offsets, s);
    for (std::int64_t token = offsets[s]; token < offsets[s + 1]; token += kFp8Block) {
      f(token, std::min(kFp8Block, offsets[s + 1] - token), task % num_heads, block++);
    }
  }
}

void rotate(float* row, std::int64_t head_dim) {
  for (std::int64_t c = 0; c < head_dim; ++c) {
    if ((fp8_signs(c / 32) >> c % 32 & 1) != 0) row[c] = -row[c];
  }
  for (std::int64_t step = 1; step < head_dim; step *= 2) {
    for (std::int64_t first = 0; first < head_dim; first += 2 * step) {
      for (std::int64_t c = first; c < first + step; ++c) {
        const float a = row[c], b = row[c + step];
        row[c] = a + b, row[c + step] = a - b;
      }
    }
  }
  const float scale = hadamard_scale(head_dim);
  for (std::int64_t c = 0; c < head_dim; ++c) row[c] *= scale;
}

void quantize_block(const QuantizeHeads& args, std::int64_t token, std::int64_t count,
                    std::int64_t head, float& scale) {
  const std::int64_t dim = args.head_dim;
  float rows[kFp8Block * kMaxHeadDim];
  float largest = 0;
  for (std::int64_t r = 0; r < count; ++r) {
    float* row = rows + r * dim;
    if (args.heads.type == DataType::kFloat32) {
      std::copy_n(view_as<float>(args.heads).at(token + r, head), dim, row);
    } else {
      const BFloat16* from = view_as<BFloat16>(args.heads).at(token + r, head);
      for (std::int64_t c = 0; c < dim; ++c) row[c] = static_cast<float>(from[c]);
    }
    if (args.rotation == HeadRotation::kHadamard) rotate(row, dim);
    for (std::int64_t c = 0; c < dim; ++c) {
      if (std::isfinite(row[c])) {
        largest = std::max(largest, std::abs(row[c]));
      } else {
        row[c] = std::numeric_limits<float>::quiet_NaN();
      }
    }
  }
  const bool is_zero = largest <= kSmallestFp8Block;
  scale = is_zero ? 0 : largest / kLargestFloat8;
  const float factor = is_zero ? 0 : kLargestFloat8 / largest;
  const DeviceHeads<Float8>& to = args.quantized.values;
  for (std::int64_t r = 0; r < count; ++r) {
    Float8* row = to.device_data + (token + r) * to.token_stride + head * to.head_stride;
    for (std::int64_t c = 0; c < dim; ++c) {
      float x = rows[r * dim + c] * factor;
      for (std::int64_t term = 0; term < args.terms; ++term) {
        row[term * dim + c] = Float8(x);
        x -= static_cast<float>(row[term * dim + c]);
      }
    }
  }
}

constexpr auto kValues = [] {
  std::array<float, 256> values{};
  for (int bits = 0; bits < 256; ++bits) {
    Float8 x{};
    x.bits = static_cast<std::uint8_t>(bits);
    values[bits] = static_cast<float>(x);
  }
  return values;
}();

// The heads as float32, [tokens, num_heads, head_dim], up to the last token of the offsets.
Buffer<float> values_of(const Fp8View& heads, std::span<const std::int64_t> offsets,
                        std::int64_t num_heads, std::int64_t terms, std::int64_t dim,
                        const Stream& stream) {
  Buffer<float> values(offsets.back() * num_heads * dim, stream);
  float* const data = values.device_data();
  for_each_block(offsets, num_heads, stream,
                 [&](std::int64_t token, std::int64_t count, std::int64_t head, std::int64_t b) {
                   const float scale = heads.scales_of(head)[b];
                   for (std::int64_t t = token; t < token + count; ++t) {
                     const Float8* from = heads.at(t, head);
                     float* to = data + (t * num_heads + head) * dim;
                     for (std::int64_t c = 0; c < dim; ++c) {
                       float sum = kValues[from[c].bits];
                       for (std::int64_t term = 1; term < terms; ++term) {
                         sum += kValues[from[term * dim + c].bits];
                       }
                       to[c] = sum * scale;
                     }
                   }
                 });
  return values;
}

void check_offsets(std::span<const std::int64_t> offsets) {
  require(offsets.front() >= 0 && std::ranges::is_sorted(offsets),
          "offsets must not fall, nor begin below 0");
}

void check_blocks(std::string_view name, const Fp8Heads& heads,
                  std::span<const std::int64_t> offsets, std::int64_t num_heads) {
  const std::int64_t tokens = offsets.back() - offsets.front();
  const std::int64_t scales = num_fp8_scales(tokens, std::ssize(offsets) - 1, num_heads);
  require(tokens == 0 || heads.values.device_data, "{} has no data for {} tokens", name, tokens);
  require(std::ssize(heads.scales) >= scales,
          "{} has {} scales for {} (num_fp8_scales says how many)", name, heads.scales.size(),
          scales);
}

// The offsets of q's rows; those of shared queries are put into `shared`.
std::span<const std::int64_t> offsets_of_q(const AttentionView& view,
                                           std::array<std::int64_t, 2>& shared) {
  shared = {0, view.num_shared_queries};
  return view.num_shared_queries > 0 ? std::span<const std::int64_t>(shared) : view.query_offsets;
}

}  // namespace

template <>
void quantize_heads_on<DeviceType::kCpu>(const QuantizeHeads& args, const Stream& stream) {
  const std::span offsets = host_view(args.offsets, stream);
  check_offsets(offsets);
  require(offsets.front() == offsets.back() || args.heads.device_data,
          "heads have no data for {} tokens", offsets.back() - offsets.front());
  check_blocks("quantized", args.quantized, offsets, args.num_heads);
  const std::span scales = host_view(args.quantized.scales, stream);
  const std::int64_t scales_per_head = std::ssize(scales) / args.num_heads;
  for_each_block(offsets, args.num_heads, stream,
                 [&](std::int64_t token, std::int64_t count, std::int64_t head, std::int64_t b) {
                   quantize_block(args, token, count, head, scales[head * scales_per_head + b]);
                 });
}

template <>
void jagged_attention_fp8_forward_on<DeviceType::kCpu>(const AttentionFp8Forward& args,
                                                       const Stream& stream) {
  check_host_may_read(stream);
  const AttentionView view = view_of(args.attention);
  std::array<std::int64_t, 2> shared;
  const std::span query_offsets = offsets_of_q(view, shared);
  const std::int64_t heads = view.num_heads, key_heads = view.num_key_heads, dim = view.head_dim;
  check_offsets(query_offsets);
  check_offsets(view.key_offsets);
  check_blocks("q", args.q, query_offsets, heads);
  check_blocks("k", args.k, view.key_offsets, key_heads);
  check_blocks("v", args.v, view.key_offsets, key_heads);
  const auto q = values_of(view_of(args.q, heads), query_offsets, heads, fp8_terms_of_queries(dim),
                           dim, stream);
  const auto k = values_of(view_of(args.k, key_heads), view.key_offsets, key_heads, 1, dim, stream);
  const auto v = values_of(view_of(args.v, key_heads), view.key_offsets, key_heads, 1, dim, stream);
  AttentionForward attention = args.attention;
  attention.q = DeviceHeads<const float>{q.device_data(), heads * dim, dim};
  attention.k = DeviceHeads<const float>{k.device_data(), key_heads * dim, dim};
  attention.v = DeviceHeads<const float>{v.device_data(), key_heads * dim, dim};
  jagged_attention_forward(attention, stream);
}

template <>
std::int64_t jagged_attention_fp8_forward_workspace_on<DeviceType::kCpu>(
    const AttentionFp8Forward& args, const Stream& stream) {
  check_host_may_read(stream);
  const AttentionView view = view_of(args.attention);
  std::array<std::int64_t, 2> shared;
  const std::int64_t rows = offsets_of_q(view, shared).back() * view.num_heads +
                            2 * view.key_offsets.back() * view.num_key_heads;
  AttentionForward attention = args.attention;  // nobody looks at its tokens
  attention.q.device_data = args.q.values.device_data;
  attention.k.device_data = args.k.values.device_data;
  attention.v.device_data = args.v.values.device_data;
  return static_cast<std::int64_t>(sizeof(float)) * rows * view.head_dim +
         jagged_attention_forward_workspace(attention, stream);
}

}  // namespace serrate
