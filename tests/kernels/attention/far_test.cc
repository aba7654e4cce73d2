// Tokens, pairs and strides of which an index has more than 32 bits.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <new>
#include <vector>

#include "tests/kernels/attention/biases.h"

namespace serrate {
namespace {

// Reserved and not touched: only the pages that are used take memory.
template <typename T>
class Untouched {
 public:
  explicit Untouched(std::int64_t size) : size_(size) {
    void* memory = mmap(nullptr, bytes(), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    data_ = static_cast<T*>(memory);
  }
  Untouched(const Untouched&) = delete;
  Untouched& operator=(const Untouched&) = delete;
  ~Untouched() { munmap(data_, bytes()); }
  T* data() const { return data_; }
  DeviceSpan<T> span() const { return {data_, static_cast<std::size_t>(size_)}; }

 private:
  std::size_t bytes() const { return static_cast<std::size_t>(size_) * sizeof(T); }
  std::int64_t size_;
  T* data_;
};

// A case with every array of tokens moved by so many tokens that places in lse, views and biases
// lie beyond 2^31.
class FarCase {
 public:
  static constexpr std::int64_t kFar = (std::int64_t{1} << 30) + 5;
  static constexpr std::int64_t kBlock = std::int64_t{1} << 30;  // of the bias, a head

  explicit FarCase(Case& c) : near_(c), lse_(c.shape.num_heads * tokens()) {
    for (const std::int64_t x : c.query_offsets) query_offsets_.push_back(x + kFar);
    for (const std::int64_t x : c.key_offsets) key_offsets_.push_back(x + kFar);
    for (Tokens* x : {&c.q, &c.k, &c.v, &c.d_out, &c.out, &c.d_q, &c.d_k, &c.d_v}) {
      memory_.push_back(std::make_unique<Untouched<float>>(tokens() * x->num_heads * dim()));
    }
    copy(c.q, 0), copy(c.k, 1), copy(c.v, 2), copy(c.d_out, 3);
    move(c.query_times, query_times_), move(c.key_times, key_times_);
    move(c.token_ids, ids_);
    for (std::int64_t s = 0; s < std::ssize(c.query_offsets) - 1; ++s) {
      for (std::int64_t h = 0; h < c.shape.num_heads; ++h) {
        std::copy_n(c.bias.data.device_data() + s * c.bias.sequence_stride + h * c.bias.head_stride,
                    c.bias.head_stride, bias_.data() + (s * c.shape.num_heads + h) * kBlock);
      }
    }
  }

  void run() {
    AttentionForward args = near_.forward_args();
    args.q = heads(0), args.k = heads(1), args.v = heads(2), args.out = heads(4);
    args.lse = lse_.span();
    args.query_offsets = on_cpu(query_offsets_), args.key_offsets = on_cpu(key_offsets_);
    args.query_times = query_times_.span(), args.key_times = key_times_.span();
    args.dropout.token_ids = ids_.span();
    args.bias.data = bias_.span();
    args.bias.head_stride = kBlock, args.bias.sequence_stride = near_.shape.num_heads * kBlock;
    const Stream stream(Device::cpu(), 2);
    jagged_attention_forward(args, stream);
    jagged_attention_backward({args, heads(3), heads(5), heads(6), heads(7), d_bias_.span(),
                               near_.d_position_table.on(stream), near_.d_time_table.on(stream)},
                              stream);
    near_.d_position_table.host(), near_.d_time_table.host();
  }

  void expect_values_of(Case& c) {
    const std::array results = {&c.out, &c.d_q, &c.d_k, &c.d_v};
    for (int i = 0; i < 4; ++i) {
      Tokens& x = *results[i];
      x.for_each([&](float& value, std::int64_t index) {
        const std::int64_t token = index / (x.num_heads * dim()) + kFar;
        ASSERT_EQ(at(4 + i, token, index / dim() % x.num_heads)[index % dim()], value);
      });
    }
    for (std::int64_t h = 0; h < c.shape.num_heads; ++h) {
      const std::int64_t row = h * (c.lse.size() / c.shape.num_heads);
      for (std::int64_t t = c.query_offsets.front(); t < c.query_offsets.back(); ++t) {
        ASSERT_EQ(lse_.data()[h * tokens() + t + kFar], c.lse[row + t]);
      }
    }
    for (std::int64_t s = 0; s < std::ssize(c.query_offsets) - 1; ++s) {
      for (std::int64_t h = 0; h < c.shape.num_heads; ++h) {
        const float* block =
            c.d_bias->host().data() + s * c.bias.sequence_stride + h * c.bias.head_stride;
        const float* far_block = d_bias_.data() + (s * c.shape.num_heads + h) * kBlock;
        EXPECT_TRUE(std::equal(block, block + c.bias.head_stride, far_block));
      }
    }
  }

 private:
  static constexpr std::int64_t kSequences = 3;
  std::int64_t dim() const { return near_.shape.head_dim; }
  std::int64_t tokens() const {
    return kFar + std::max(near_.query_offsets.back(), near_.key_offsets.back());
  }
  DeviceHeads<float> heads(int tensor) const {
    const bool has_queries = tensor == 0 || (tensor >= 3 && tensor <= 5);
    const std::int64_t heads = has_queries ? near_.shape.num_heads : near_.shape.num_key_heads;
    return {memory_[tensor]->data(), heads * dim(), dim()};
  }
  float* at(int tensor, std::int64_t token, std::int64_t head) const {
    const DeviceHeads<float> from = heads(tensor);
    return from.device_data + token * from.token_stride + head * from.head_stride;
  }
  void copy(Tokens& from, int tensor) {
    from.for_each([&](float& x, std::int64_t i) {
      at(tensor, i / (from.num_heads * dim()) + kFar, i / dim() % from.num_heads)[i % dim()] = x;
    });
  }
  static void move(std::span<const std::int64_t> from, Untouched<std::int64_t>& to) {
    std::ranges::copy(from, to.data() + kFar);
  }

  Case& near_;
  std::vector<std::int64_t> query_offsets_, key_offsets_;
  std::vector<std::unique_ptr<Untouched<float>>> memory_;
  Untouched<float> lse_, bias_{kSequences * 4 * kBlock}, d_bias_{kSequences * 4 * kBlock};
  Untouched<std::int64_t> query_times_{2 * kFar}, key_times_{2 * kFar}, ids_{2 * kFar};
};

// Tokens 2^30 elements apart: the last one of any tensor lies 2^33 bytes from its first.
TEST(AttentionFar, StridesBeyondTwoToThe31Elements) {
  TestStreams host(Device::cpu());
  constexpr std::int64_t kStride = std::int64_t{1} << 30, kTokens = 4;
  const Untouched<float> memory((kTokens + 1) * kStride);
  Case c(causal_shape({kTokens - kTokensBefore}, {kTokens - kTokensBefore}, 1, 8), host);
  c.run();
  const auto far = [&](int tensor) {
    return DeviceHeads<float>{memory.data() + tensor * 4096, kStride, 8};
  };
  const auto row = [&](int tensor, std::int64_t token) {
    return memory.data() + tensor * 4096 + token * kStride;
  };
  const auto copy = [&](Tokens& from, int tensor) {
    for (std::int64_t token = kTokensBefore; token < kTokens; ++token) {
      std::copy_n(from.at(token, 0), 8, row(tensor, token));
    }
  };
  copy(c.q, 0), copy(c.k, 1), copy(c.v, 2), copy(c.d_out, 3);
  AttentionForward args = c.forward_args();
  args.q = far(0), args.k = far(1), args.v = far(2), args.out = far(4);
  jagged_attention_forward(args, Stream());
  jagged_attention_backward({args, far(3), far(5), far(6), far(7)}, Stream());
  Tokens* expected[] = {&c.out, &c.d_q, &c.d_k, &c.d_v};
  for (int i = 0; i < 4; ++i) {
    for (std::int64_t token = kTokensBefore; token < kTokens; ++token) {
      for (std::int64_t x = 0; x < 8; ++x) {
        EXPECT_EQ(row(4 + i, token)[x], expected[i]->at(token, 0)[x]);
      }
    }
  }
}

TEST(AttentionFar, PlacesBeyondTwoToThe31) {
  TestStreams host(Device::cpu());
  Shape shape = causal_shape({40, 0, 5}, {40, 3, 60}, 4, 2);
  shape.num_key_heads = 2;
  Case c(shape, host);
  Biases biases(c);
  constexpr std::int64_t kBlock = 40 * 60;
  std::vector<float> bias(3 * 4 * kBlock);
  TestArray<float> d_bias(std::ssize(bias));
  for (std::size_t i = 0; i < bias.size(); ++i) bias[i] = std::sin(static_cast<float>(i));
  c.bias = {c.input(bias), 4 * kBlock, kBlock, 60, 1};
  c.d_bias = &d_bias;
  c.token_ids = ids_of_tokens(c);
  c.dropout = {.rate = 0.2f};
  FarCase far(c);
  c.run();
  const std::vector<float> d_position_table = c.d_position_table.host();
  const std::vector<float> d_time_table = c.d_time_table.host();
  std::ranges::fill(c.d_position_table.host(), 0.0f);
  std::ranges::fill(c.d_time_table.host(), 0.0f);
  far.run();
  far.expect_values_of(c);
  expect_same_bits(c.d_position_table, d_position_table);
  expect_same_bits(c.d_time_table, d_time_table);
}

// Few queries over a history of which element 2^31 and pairs 2^31 of the bias are part.
TEST(AttentionFar, AHistoryBeyondTwoToThe31Elements) {
  TestStreams host(Device::cpu());
  constexpr std::int64_t kKeys = (std::int64_t{1} << 25) + 100, kStride = 64, kQueries = 70;
  constexpr std::int64_t kNear = 200, kMoved = kKeys - kNear;
  Shape shape = full_shape({kQueries}, {kNear}, 1, 2);
  shape.mask = WindowMask{.left = 50, .right = 0, .corner = MaskCorner::kBottomRight};
  shape.visible = [](std::int64_t, std::int64_t i, std::int64_t j) {
    const std::int64_t own = i + kNear - kQueries;
    return own - 50 <= j && j <= own;
  };
  Case c(shape, host);
  const std::vector<float> by_place = {1, -1, 0.5f, 2, -2, 0};
  const std::vector<std::int64_t> places = {-150, -140, -130, -125, -120};
  c.position_table = {c.input(by_place), c.input(places)};
  std::vector<std::int64_t> far_places;
  for (const std::int64_t place : places) far_places.push_back(place - kMoved);
  const Untouched<float> k(kKeys * kStride), v(kKeys * kStride), bias(kQueries * kKeys);
  c.bias_of_pairs.resize(c.in_double().num_pairs());
  for (std::int64_t i = 0; i < kQueries; ++i) {
    for (std::int64_t j = 0; j < kNear; ++j) {
      const float x = bias.data()[i * kKeys + kMoved + j] = std::sin(static_cast<float>(i + 9 * j));
      c.bias_of_pairs[i * kNear + j] =
          static_cast<double>(x) + by_place[count_up_to(places, i - j)];
    }
  }
  for (std::int64_t j = 0; j < kNear; ++j) {
    for (int x = 0; x < 2; ++x) {
      k.data()[(kMoved + j) * kStride + x] = c.k.at(kTokensBefore + j, 0)[x];
      v.data()[(kMoved + j) * kStride + x] = c.v.at(kTokensBefore + j, 0)[x];
    }
  }
  const std::vector<std::int64_t> key_offsets = {0, kKeys};
  AttentionForward args = c.forward_args();
  args.k = DeviceHeads<float>{k.data(), kStride, 2};
  args.v = DeviceHeads<float>{v.data(), kStride, 2};
  args.key_offsets = on_cpu(key_offsets);
  args.bias = {bias.span(), 0, 0, kKeys, 1};
  args.position_table.boundaries = on_cpu(far_places);
  jagged_attention_forward(args, Stream(Device::cpu(), 2));
  const reference::AttentionOutput expected = reference::attention_forward(c.in_double());
  expect_close(c.out, expected.out, 2e-6);
}

}  // namespace
}  // namespace serrate
