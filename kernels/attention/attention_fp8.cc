// The checks of what the host knows of a call.
#include "serrate/kernels/attention_fp8.h"

#include <cstdint>
#include <string_view>
#include <variant>

#include "kernels/attention/checks.h"
#include "kernels/attention/fp8.h"
#include "kernels/attention/require.h"
#include "kernels/attention/view.h"
#include "src/core/dispatch.h"

namespace serrate {
namespace {

void check_head_dim(std::int64_t head_dim) {
  require(head_dim == 64 || head_dim == 128 || head_dim == 256,
          "head_dim is {} (in e4m3 it is 64, 128 or 256)", head_dim);
}

void check_rows(std::string_view name, const void* data, std::int64_t size_of_value,
                std::int64_t token_stride, std::int64_t head_stride) {
  require(reinterpret_cast<std::uintptr_t>(data) % 16 == 0 &&
              token_stride * size_of_value % 16 == 0 && head_stride * size_of_value % 16 == 0,
          "{}'s rows do not begin at multiples of 16 bytes (token_stride {}, head_stride {}, {} "
          "bytes a value)",
          name, token_stride, head_stride, size_of_value);
}
template <typename Void>
void check_rows(std::string_view name, const AnyHeads<Void>& heads) {
  require(heads.type == DataType::kFloat32 || heads.type == DataType::kBFloat16,
          "{} is neither float32 nor bfloat16; convert it to one of them", name);
  check_rows(name, heads.device_data, size_of(heads.type), heads.token_stride, heads.head_stride);
}

// Rows of `terms` times head_dim values. `batches`: sequences that have rows there.
void check_quantized(std::string_view name, const Fp8Heads& heads, std::int64_t num_heads,
                     std::int64_t batches, std::int64_t terms, std::int64_t head_dim) {
  const auto [data, token_stride, head_stride] = heads.values;
  const std::int64_t row = terms * head_dim;
  require(
      !data || (token_stride >= row && (num_heads == 1 || head_stride >= row)),
      "{}'s token_stride is {} and its head_stride {} (a row has {} x {} values); quantise with "
      "fp8_terms_of_queries(head_dim) terms for queries and 1 for keys and values",
      name, token_stride, head_stride, terms, head_dim);
  check_rows(name, data, 1, token_stride, head_stride);
  require(std::ssize(heads.scales) % num_heads == 0 &&
              std::ssize(heads.scales) >= num_fp8_scales(0, batches, num_heads),
          "{} has {} scales (must be [num_heads, blocks]); allocate num_fp8_scales(tokens, {}, {}) "
          "for {} heads of {} sequences",
          name, heads.scales.size(), batches, num_heads, num_heads, batches);
}

void check_fp8(const AttentionFp8Forward& args) {
  const AttentionForward& attention = args.attention;
  const auto leaves_out = [](bool is_there, std::string_view what) {
    require(!is_there, "{} in e4m3; use bfloat16 tokens", what);
  };
  check_head_dim(attention.head_dim);
  require(attention.precision != Precision::kTf32,
          "there is no tf32 in e4m3; leave precision at kFp32");
  leaves_out(attention.activation != AttentionActivation::kSoftmax, "there is no SiLU");
  leaves_out(!attention.bias.data.empty(), "there is no bias");
  leaves_out(!attention.position_table.values.empty() || !attention.time_table.values.empty(),
             "there are no tables");
  leaves_out(attention.dropout.rate != 0, "there is no dropout");
  leaves_out(std::holds_alternative<ColumnMask>(attention.mask) ||
                 std::holds_alternative<BlockMask>(attention.mask),
             "there is no ColumnMask or BlockMask");
  require(!attention.q.device_data && !attention.k.device_data && !attention.v.device_data,
          "q, k and v are given in e4m3; leave those of `attention` empty");
  check_rows("out", attention.out);
  const std::int64_t batch_size = std::ssize(attention.key_offsets) - 1;
  const std::int64_t key_heads = num_key_heads_of(attention);
  const std::int64_t dim = attention.head_dim;
  check_quantized("q", args.q, attention.num_heads,
                  attention.num_shared_queries > 0 ? 1 : batch_size, fp8_terms_of_queries(dim),
                  dim);
  check_quantized("k", args.k, key_heads, batch_size, 1, dim);
  check_quantized("v", args.v, key_heads, batch_size, 1, dim);
}

}  // namespace

void require_e4m3(int built_for) {
  require(built_for >= 89,
          "e4m3 needs a GPU of compute capability 8.9 or higher and a build for it (what the GPU "
          "runs was built for {}.{}); use bfloat16 tokens, or set CMAKE_CUDA_ARCHITECTURES",
          built_for / 10, built_for % 10);
}

void quantize_heads(const QuantizeHeads& args, const Stream& stream) {
  check_head_dim(args.head_dim);
  require(args.num_heads >= 1, "num_heads is {} (must be at least 1)", args.num_heads);
  require(args.terms == 1 || args.terms == 2,
          "terms is {} (must be 1 or 2); pass fp8_terms_of_queries(head_dim) for queries and 1 for "
          "keys and values",
          args.terms);
  require(!args.offsets.empty(), "offsets are empty (must have batch_size + 1)");
  check_rows("heads", args.heads);
  check_quantized("quantized", args.quantized, args.num_heads, std::ssize(args.offsets) - 1,
                  args.terms, args.head_dim);
  dispatch_device(stream.device(), [&](auto device) { quantize_heads_on<device()>(args, stream); });
}

void jagged_attention_fp8_forward(const AttentionFp8Forward& args, const Stream& stream) {
  check_forward(args.attention);
  check_fp8(args);
  dispatch_device(stream.device(),
                  [&](auto device) { jagged_attention_fp8_forward_on<device()>(args, stream); });
}

std::int64_t jagged_attention_fp8_forward_workspace(const AttentionFp8Forward& args,
                                                    const Stream& stream) {
  check_forward(args.attention);
  check_fp8(args);
  return dispatch_device(stream.device(), [&](auto device) {
    return jagged_attention_fp8_forward_workspace_on<device()>(args, stream);
  });
}

}  // namespace serrate
