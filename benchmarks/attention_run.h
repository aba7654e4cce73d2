#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <utility>
#include <vector>

#include "benchmarks/attention_workloads.h"
#include "benchmarks/benchmark_device.h"
#include "serrate/buffer.h"
#include "serrate/kernels/attention.h"
#include "serrate/kernels/attention_fp8.h"

namespace serrate {

/// Dense [num_tokens, num_heads, head_dim] arguments of one workload, and calls with them.
template <typename T>
class AttentionRun {
 public:
  AttentionRun(AttentionWorkload workload, const Stream& stream)
      : w_(std::move(workload)),
        stream_(stream),
        query_offsets_(offsets_of(w_.query_lengths), stream),
        key_offsets_(offsets_of(w_.key_lengths), stream),
        tokens_of_q_(w_.shares_queries ? w_.query_lengths.front() : w_.num_queries()),
        q_(random_rows(tokens_of_q_, 0)),
        k_(random_rows(w_.num_keys(), 1)),
        v_(random_rows(w_.num_keys(), 2)),
        out_(w_.num_queries() * columns(), stream),
        lse_(w_.num_queries() * w_.num_heads, stream) {
    if (w_.has_backward) {
      d_out_ = random_rows(w_.num_queries(), 3);
      for (Buffer<T>* x : {&d_q_, &d_k_, &d_v_}) {
        *x = Buffer<T>((x == &d_q_ ? q_ : k_).size(), stream);
      }
    }
    if (w_.is_fp8) {
      q8_ = {tokens_of_q_, fp8_terms_of_queries(w_.head_dim), w_, stream};
      k8_ = {w_.num_keys(), 1, w_, stream}, v8_ = {w_.num_keys(), 1, w_, stream};
      quantize();
    }
    make_mask();
    plan();
    partials_ = Buffer<float>(plan_.num_partials(), stream);
  }

  /// All layers of a model share it, in both directions.
  void plan() { plan_ = plan_attention(args(), stream_); }
  void forward() { jagged_attention_forward(planned_args(), stream_); }
  /// For a workload in e4m3: rounds q, k and v to it; forward_fp8 is the forward of these.
  void quantize() {
    const auto round = [&](Buffer<T>& from, const DeviceSpan<const std::int64_t>& offsets,
                           Rows8& to, std::int64_t terms, HeadRotation rotation) {
      quantize_heads({view(from), to.heads(), offsets, w_.num_heads, w_.head_dim, terms, rotation},
                     stream_);
    };
    round(q_, query_offsets_.span(), q8_, fp8_terms_of_queries(w_.head_dim),
          HeadRotation::kHadamard);
    round(k_, key_offsets_.span(), k8_, 1, HeadRotation::kHadamard);
    round(v_, key_offsets_.span(), v8_, 1, HeadRotation::kNone);
  }
  void forward_fp8() { jagged_attention_fp8_forward(fp8_args(), stream_); }
  /// What both read and write, once.
  double fp8_bytes() const {
    return static_cast<double>(q8_.bytes() + k8_.bytes() + v8_.bytes() + out_.bytes() +
                               lse_.bytes());
  }
  double quantize_bytes() const {
    return static_cast<double>(q8_.bytes() + k8_.bytes() + v8_.bytes() + q_.bytes() + k_.bytes() +
                               v_.bytes());
  }
  void backward() { jagged_attention_backward(backward_args(), stream_); }

  /// q, k, v, out and the log-sum-exp, once; for the backward those (with SiLU without out, which
  /// only softmax reads), d_out and three gradients.
  double forward_bytes() const {
    const bool has_lse = w_.activation == AttentionActivation::kSoftmax;
    return static_cast<double>(sizeof(T) * (q_.size() + k_.size() + v_.size() + out_.size()) +
                               (has_lse ? lse_.bytes() : 0));
  }
  double backward_bytes() const {
    const bool reads_out = w_.activation == AttentionActivation::kSoftmax;
    return forward_bytes() +
           static_cast<double>(sizeof(T) * (d_out_.size() + d_q_.size() + d_k_.size() +
                                            d_v_.size() - (reads_out ? 0 : out_.size())));
  }
  /// Besides q, k, v and d_out: results, and what calls allocate.
  double extra_bytes() {
    const auto results = static_cast<double>(
        sizeof(T) * (out_.size() + d_q_.size() + d_k_.size() + d_v_.size()) + lse_.bytes());
    const std::int64_t forward =
        partials_.bytes() + (w_.is_fp8
                                 ? jagged_attention_fp8_forward_workspace(fp8_args(), stream_)
                                 : jagged_attention_forward_workspace(planned_args(), stream_));
    const std::int64_t backward =
        w_.has_backward ? jagged_attention_backward_workspace(backward_args(), stream_) : 0;
    return results + static_cast<double>(std::max(forward, backward));
  }

 private:
  /// Tokens of all heads in e4m3.
  struct Rows8 {
    std::int64_t columns = 0, head_stride = 0;
    Buffer<Float8> values;
    Buffer<float> scales;

    Rows8() = default;
    Rows8(std::int64_t tokens, std::int64_t terms, const AttentionWorkload& w, const Stream& stream)
        : columns(w.num_heads * terms * w.head_dim),
          head_stride(terms * w.head_dim),
          values(tokens * columns, stream),
          scales(num_fp8_scales(tokens, std::ssize(w.key_lengths), w.num_heads), stream) {}
    Fp8Heads heads() { return {{values.device_data(), columns, head_stride}, scales.span()}; }
    std::int64_t bytes() const { return values.bytes() + scales.bytes(); }
  };

  static std::vector<std::int64_t> offsets_of(const std::vector<std::int64_t>& lengths) {
    std::vector<std::int64_t> offsets{0};
    for (const std::int64_t length : lengths) offsets.push_back(offsets.back() + length);
    return offsets;
  }
  std::int64_t columns() const { return w_.num_heads * w_.head_dim; }

  /// Drawn from a normal distribution; draws repeat, which takes less time than to draw all.
  Buffer<T> random_rows(std::int64_t tokens, std::uint32_t seed) const {
    const std::int64_t size = tokens * columns();
    std::mt19937 generator(seed);
    std::normal_distribution<float> normal;
    std::vector<T> drawn(static_cast<std::size_t>(std::min<std::int64_t>(size, 1 << 18)));
    for (T& value : drawn) value = T(normal(generator));
    Buffer<T> rows(size, stream_);
    copy_from_host(drawn, rows.span().first(drawn.size()), stream_);
    for (std::size_t filled = drawn.size(); filled < rows.span().size();) {
      const std::size_t more = std::min(filled, rows.span().size() - filled);
      copy<T>(rows.span().first(more), rows.span().subspan(filled, more), stream_);
      filled += more;
    }
    return rows;
  }

  void make_mask() {
    const std::int64_t length = w_.key_lengths.front();
    if (w_.has_bit_mask) return make_bits(length);
    switch (w_.mask) {
      case WorkloadMask::kFull:
        mask_ = FullMask{};
        return;
      case WorkloadMask::kCausal:
        mask_ = kCausalMask;
        return;
      case WorkloadMask::kWindow:
        mask_ = WindowMask{w_.window, 0};
        return;
      case WorkloadMask::kRandomEviction:
        return make_columns();
      default:
        break;
    }
    std::vector<std::int64_t> ranges;
    for (const std::int64_t keys : w_.key_lengths) {
      for (std::int64_t i = 0; i < keys; ++i) {
        const KeyRanges seen = w_.keys_of(i, keys);
        ranges.insert(ranges.end(), {seen.begin[0], seen.end[0], seen.begin[1], seen.end[1]});
      }
    }
    ranges_ = {ranges, stream_};
    mask_ = RowMask{std::as_const(ranges_).span()};
  }
  void make_columns() {
    std::vector<std::int64_t> ranges;
    for (const std::int64_t keys : w_.key_lengths) {
      const std::vector<std::int64_t> forgotten = w_.forgotten_at(keys);
      for (std::int64_t j = 0; j < keys; ++j) {
        ranges.insert(ranges.end(), {forgotten[j], keys, 0, j});
      }
    }
    ranges_ = {ranges, stream_};
    mask_ = ColumnMask{std::as_const(ranges_).span()};
  }
  void make_bits(std::int64_t length) {
    std::vector<std::uint8_t> visible(static_cast<std::size_t>(length * length));
    for (std::int64_t i = 0; i < length; ++i) {
      const KeyRanges seen = w_.keys_of(i, length);
      for (int range = 0; range < 2; ++range) {
        for (std::int64_t j = seen.begin[range]; j < seen.end[range]; ++j) {
          visible[i * length + j] = 1;
        }
      }
    }
    const Buffer<std::uint8_t> on_device(visible, stream_);
    bits_.emplace_back(on_device.matrix(length, length), stream_);
    views_ = {std::vector{bits_.front().view()}, stream_};
    mask_ = BlockMask{std::as_const(views_).span()};
  }

  DeviceHeads<T> view(Buffer<T>& x) const { return {x.device_data(), columns(), w_.head_dim}; }
  AttentionForward args() {
    AttentionForward args{.q = view(q_),
                          .k = view(k_),
                          .v = view(v_),
                          .out = view(out_),
                          .lse = lse_.span(),
                          .query_offsets = query_offsets_.span(),
                          .key_offsets = key_offsets_.span(),
                          .num_heads = w_.num_heads,
                          .head_dim = w_.head_dim,
                          .scale = 1 / std::sqrt(static_cast<float>(w_.head_dim)),
                          .mask = mask_,
                          .activation = w_.activation};
    if (w_.shares_queries) {
      args.query_offsets = {};
      args.num_shared_queries = tokens_of_q_;
    }
    if (w_.activation == AttentionActivation::kSilu) {
      args.silu_divisor = static_cast<float>(std::ranges::max(w_.key_lengths));
    }
    return args;
  }
  AttentionForward planned_args() {
    AttentionForward planned = args();
    planned.plan = &plan_;
    planned.partials = partials_.span();
    return planned;
  }
  AttentionFp8Forward fp8_args() {
    AttentionFp8Forward call{q8_.heads(), k8_.heads(), v8_.heads(), planned_args()};
    call.attention.q = call.attention.k = call.attention.v = {};
    return call;
  }
  AttentionBackward backward_args() {
    return {.forward = planned_args(),
            .d_out = view(d_out_),
            .d_q = view(d_q_),
            .d_k = view(d_k_),
            .d_v = view(d_v_)};
  }

  AttentionWorkload w_;
  const Stream& stream_;
  Buffer<std::int64_t> query_offsets_, key_offsets_;
  std::int64_t tokens_of_q_;
  Buffer<T> q_, k_, v_, d_out_, out_, d_q_, d_k_, d_v_;
  Buffer<float> lse_, partials_;
  Rows8 q8_, k8_, v8_;
  AttentionMask mask_;
  Buffer<std::int64_t> ranges_;
  std::vector<BitMask> bits_;
  Buffer<BitMaskView> views_;
  AttentionPlan plan_;
};

}  // namespace serrate
