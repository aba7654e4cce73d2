// What attention on tensor cores moves and multiplies, as the simulated device counts it, against
// the least that it could: every tensor once. There is no cache in the count.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>
#include <string>
#include <vector>

#include "serrate/buffer.h"
#include "serrate/kernels/attention.h"
#include "tests/support/simt/counters.h"

namespace serrate {
namespace {

constexpr std::int64_t kHeads = 2;

class AttentionBytes : public testing::Test {
 protected:
  // Sequences of one length, all of which is read, for some batches of sizes and masks.
  struct Tokens {
    Buffer<BFloat16> values;
    DeviceHeads<BFloat16> heads;

    Tokens(std::int64_t tokens, std::int64_t head_dim, const Stream& stream)
        : values(Buffer<BFloat16>::zeros(tokens * kHeads * head_dim, stream)),
          heads{values.device_data(), kHeads * head_dim, head_dim} {}
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

  // Causal self-attention, forward and backward, which may move so many times the floor.
  void expect_near_floor(std::int64_t length, std::int64_t batch_size, std::int64_t head_dim,
                         double most_of_backward = 1.1) {
    const std::int64_t tokens = length * batch_size;
    std::vector<std::int64_t> host_offsets;
    for (std::int64_t s = 0; s <= batch_size; ++s) host_offsets.push_back(s * length);
    const Buffer<std::int64_t> offsets(host_offsets, stream_);
    std::vector<Tokens> x;
    for (int i = 0; i < 8; ++i) x.emplace_back(tokens, head_dim, stream_);
    Buffer<float> lse(tokens * kHeads, stream_);
    AttentionForward forward;
    forward.q = x[0].heads, forward.k = x[1].heads, forward.v = x[2].heads;
    forward.out = x[3].heads, forward.lse = lse.span();
    forward.query_offsets = forward.key_offsets = offsets.span();
    forward.num_heads = kHeads, forward.head_dim = head_dim;
    const AttentionPlan plan = plan_attention(forward, stream_);
    forward.plan = &plan;
    const AttentionBackward backward{forward,    x[4].heads, x[5].heads, x[6].heads,
                                     x[7].heads, {},         {},         {}};
    const auto pairs = static_cast<double>(batch_size * kHeads * length * (length + 1) / 2);
    const auto rows = static_cast<double>(tokens * kHeads), dim = static_cast<double>(head_dim);
    const auto expect = [&](const char* direction, const Counted& counted, int tensors, int depth,
                            double most) {
      const double bytes = counted.bytes / (rows * (tensors * dim * 2 + 4));
      const double products = counted.products / (pairs * depth * dim / (16 * 8 * 16));
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

  const Stream stream_{Device::cuda(0)};
};

TEST_F(AttentionBytes, SequencesOfOneTileAreReadOnce) {
  for (const std::int64_t head_dim : {32, 64, 128, 256}) {
    for (const std::int64_t length : {16, 32, 64}) {
      const std::int64_t columns = head_dim == 32 ? 1 << 16 : 1 << 15;
      expect_near_floor(length, columns / (length * head_dim), head_dim);
    }
  }
}

// Eight of them and of heads: enough for each to be one block's. The backward has room for five
// tiles of 64 queries of 64 columns with their gradients, or two of 128; d_q of more is another
// kernel's, and of more than eleven or five every tile of keys is a block's.
TEST_F(AttentionBytes, SequencesOfSeveralTilesAreReadOnce) {
  if (!has_shared_memory_of_sm_90()) GTEST_SKIP() << "what fits depends on shared memory";
  expect_near_floor(128, 16, 32);
  expect_near_floor(128, 8, 64);
  expect_near_floor(256, 4, 64);
  expect_near_floor(512, 4, 64, 0);  // 1.65: counted once, as it takes long
  expect_near_floor(128, 4, 128);
  expect_near_floor(256, 4, 128, 1.8);
  expect_near_floor(512, 4, 128, 0);  // 3.72, likewise
}

}  // namespace
}  // namespace serrate
