#pragma once

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "serrate/buffer.h"
#include "serrate/kernels/attention.h"
#include "serrate/kernels/attention_fp8.h"
#include "tests/support/simt/counters.h"

namespace serrate {

/// Batches of attention, and what calls with them count.
class AttentionBytes : public testing::Test {
 protected:
  static constexpr std::int64_t kHeads = 2;

  // Sequences of one length, all of which is read, for some batches of sizes and masks.
  struct Tokens {
    Buffer<float> values;  // or twice as many bfloat16
    OutputHeads heads;

    Tokens(std::int64_t tokens, std::int64_t head_dim, const Stream& stream,
           DataType type = DataType::kBFloat16)
        : values(Buffer<float>::zeros(tokens * kHeads * head_dim * size_of(type) / 4, stream)) {
      heads.device_data = values.device_data(), heads.type = type;
      heads.token_stride = kHeads * head_dim, heads.head_stride = head_dim;
    }
  };

  struct Counted {
    double bytes = 0, products = 0;
    std::uint64_t bank_conflicts = 0;
  };

  template <typename F>
  Counted count(F&& call) const {
    stream_.synchronize();
    simt::reset_counters();
    call();
    stream_.synchronize();
    Counted counted;
    for (const simt::KernelCounters& c : simt::kernel_counters()) {
      counted.bytes += 32.0 * static_cast<double>(c.global_read_sectors + c.global_written_sectors);
      counted.products += static_cast<double>(c.tensor_core_operations);
      counted.bank_conflicts += c.shared_bank_conflicts;
    }
    return counted;
  }

  static bool has_shared_memory_of_sm_90() {
    int bytes = 0;
    EXPECT_EQ(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0),
              cudaSuccess);
    return bytes == 227 << 10;
  }

  // Causal self-attention of sequences of one length.
  struct Batch {
    Buffer<std::int64_t> offsets;
    std::vector<Tokens> x;
    Buffer<float> lse;
    AttentionForward forward;
    AttentionPlan plan;
    AttentionBackward backward;
  };
  std::unique_ptr<Batch> batch_of(std::int64_t length, std::int64_t batch_size,
                                  std::int64_t head_dim,
                                  DataType type = DataType::kBFloat16) const {
    const std::int64_t tokens = length * batch_size;
    std::vector<std::int64_t> host_offsets;
    for (std::int64_t s = 0; s <= batch_size; ++s) host_offsets.push_back(s * length);
    Buffer<std::int64_t> offsets(host_offsets, stream_);
    std::vector<Tokens> x;
    for (int i = 0; i < 8; ++i) x.emplace_back(tokens, head_dim, stream_, type);
    Buffer<float> lse(tokens * kHeads, stream_);
    AttentionForward forward;
    forward.q = x[0].heads, forward.k = x[1].heads, forward.v = x[2].heads;
    forward.out = x[3].heads, forward.lse = lse.span();
    forward.query_offsets = forward.key_offsets = offsets.span();
    forward.num_heads = kHeads, forward.head_dim = head_dim;
    if (type == DataType::kFloat32) forward.precision = Precision::kTf32;
    AttentionPlan plan = plan_attention(forward, stream_);
    auto batch = std::make_unique<Batch>(
        Batch{std::move(offsets), std::move(x), std::move(lse), forward, std::move(plan), {}});
    batch->forward.plan = &batch->plan;
    const std::vector<Tokens>& y = batch->x;
    batch->backward = {batch->forward, y[4].heads, y[5].heads, y[6].heads, y[7].heads, {}, {}, {}};
    return batch;
  }

  // The forward and the backward of such a batch move at most so many times the floor.
  void expect_near_floor(std::int64_t length, std::int64_t batch_size, std::int64_t head_dim,
                         double most_of_backward = 1.1, DataType type = DataType::kBFloat16) {
    const std::unique_ptr<Batch> batch = batch_of(length, batch_size, head_dim, type);
    const std::int64_t size = size_of(type), depth_of_product = 32 / size;
    const AttentionForward& forward = batch->forward;
    const AttentionBackward& backward = batch->backward;
    const std::int64_t tokens = length * batch_size;
    const auto pairs = static_cast<double>(batch_size * kHeads * length * (length + 1) / 2);
    const auto rows = static_cast<double>(tokens * kHeads), dim = static_cast<double>(head_dim);
    const auto expect = [&](const char* direction, const Counted& counted, int tensors, int depth,
                            double most) {
      const double bytes = counted.bytes / (rows * (tensors * dim * static_cast<double>(size) + 4));
      const double products =
          counted.products / (pairs * depth * dim / static_cast<double>(16 * 8 * depth_of_product));
      std::cout << direction << ", length " << length << ", head_dim " << head_dim << ": " << bytes
                << " x the bytes, " << products << " x the products\n";
      EXPECT_GE(bytes, 1) << "the floor is wrong";
      EXPECT_LE(bytes, most);
      EXPECT_GE(products, 1) << "not all products were counted";
      EXPECT_LE(products, 2);  // what is above the diagonal
      EXPECT_EQ(counted.bank_conflicts, 0);
    };
    const double once = head_dim == 32 ? 1.12 : 1.1;  // offsets count beside rows of 64 bytes
    expect("forward", count([&] { jagged_attention_forward(forward, stream_); }), 4, 2, once);
    if (most_of_backward == 0) return;  // not wanted
    expect("backward", count([&] { jagged_attention_backward(backward, stream_); }), 8, 5,
           std::max(once, most_of_backward));
  }

  // Causal self-attention of e4m3.
  struct Fp8Batch {
    Buffer<std::int64_t> offsets;
    Tokens x, out;
    std::vector<Buffer<Float8>> bytes;
    std::vector<Buffer<float>> scales;
    Buffer<float> lse;
    AttentionFp8Forward forward;
    AttentionPlan plan;
  };
  // Made of bfloat16 with rotation, which is counted.
  std::unique_ptr<Fp8Batch> fp8_batch_of(std::int64_t length, std::int64_t batch_size,
                                         std::int64_t head_dim) const {
    const std::int64_t tokens = length * batch_size;
    std::vector<std::int64_t> host_offsets;
    for (std::int64_t s = 0; s <= batch_size; ++s) host_offsets.push_back(s * length);
    auto batch = std::make_unique<Fp8Batch>(Fp8Batch{{host_offsets, stream_},
                                                     {tokens, head_dim, stream_},
                                                     {tokens, head_dim, stream_},
                                                     {},
                                                     {},
                                                     {tokens * kHeads, stream_},
                                                     {},
                                                     {}});
    const std::int64_t num_scales = num_fp8_scales(tokens, batch_size, kHeads);
    const auto rows = static_cast<double>(tokens * kHeads), dim = static_cast<double>(head_dim);
    std::vector<Fp8Heads> heads;
    for (int i = 0; i < 3; ++i) {
      const std::int64_t terms = i == 0 ? fp8_terms_of_queries(head_dim) : 1;
      batch->bytes.emplace_back(tokens * kHeads * terms * head_dim, stream_);
      batch->scales.emplace_back(num_scales, stream_);
      heads.push_back({{batch->bytes[i].device_data(), kHeads * terms * head_dim, terms * head_dim},
                       batch->scales[i].span()});
      const Counted counted = count([&] {
        quantize_heads({batch->x.heads, heads[i], batch->offsets.span(), kHeads, head_dim, terms,
                        i < 2 ? HeadRotation::kHadamard : HeadRotation::kNone},
                       stream_);
      });
      const double floor =
          rows * static_cast<double>(2 + terms) * dim + 4 * static_cast<double>(num_scales);
      if (i == 0) std::cout << "quantize_heads: " << counted.bytes / floor << ", ";
      EXPECT_GE(counted.bytes / floor, 0.98) << "the floor is wrong";  // not all scales are used
      EXPECT_LE(counted.bytes / floor, 1.1);
      EXPECT_EQ(counted.bank_conflicts, 0);
    }
    AttentionFp8Forward& forward = batch->forward = {heads[0], heads[1], heads[2], {}};
    forward.attention.out = batch->out.heads, forward.attention.lse = batch->lse.span();
    forward.attention.query_offsets = forward.attention.key_offsets = batch->offsets.span();
    forward.attention.num_heads = kHeads, forward.attention.head_dim = head_dim;
    batch->plan = plan_attention(forward.attention, stream_);
    forward.attention.plan = &batch->plan;
    return batch;
  }
  void expect_fp8_near_floor(std::int64_t length, std::int64_t batch_size, std::int64_t head_dim) {
    const std::unique_ptr<Fp8Batch> batch = fp8_batch_of(length, batch_size, head_dim);
    const Counted counted = count([&] { jagged_attention_fp8_forward(batch->forward, stream_); });
    const auto rows = static_cast<double>(length * batch_size * kHeads);
    const auto dim = static_cast<double>(head_dim);
    const auto pairs = static_cast<double>(batch_size * kHeads * length * (length + 1) / 2);
    const auto terms = static_cast<double>(fp8_terms_of_queries(head_dim));
    const double moved = counted.bytes / (rows * ((4 + terms) * dim + 4));
    const double products = counted.products / (pairs * (1 + terms) * dim / (16 * 8 * 32));
    std::cout << "e4m3, length " << length << ", head_dim " << head_dim << ": " << moved
              << " x the bytes, " << products << " x the products\n";
    EXPECT_GE(moved, 1) << "the floor is wrong";
    // Offsets and scales count beside rows of 64 bytes.
    EXPECT_LE(moved, head_dim == 64 && length < 128 ? 1.15 : 1.1);
    EXPECT_GE(products, 1) << "not all products were counted";
    EXPECT_LE(products, length < 32 ? 3 : 2);
    EXPECT_EQ(counted.bank_conflicts, 0);
  }

  const Stream stream_{Device::cuda(0)};
};

}  // namespace serrate
