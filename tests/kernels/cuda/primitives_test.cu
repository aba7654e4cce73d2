// The primitives against the PTX manual, on a GPU and on the simulated device. The formulas for
// fragments are those of the sections named, not those of the headers.
#include "kernels/cuda/primitives.cuh"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/cuda/exp2.cuh"
#include "kernels/cuda/reciprocal.cuh"
#include "kernels/cuda/sigmoid.cuh"
#include "serrate/buffer.h"
#include "src/core/launch.cuh"

namespace serrate {
namespace {

class PrimitivesTest : public testing::Test {
 protected:
  const Stream stream{Device::cuda(0)};
};

// PTX ISA 9.1, 9.7.13.1: warp 1 produces, warps 0 and 2 consume. The producer does not wait for the
// barrier that says "full", nor do the consumers for the one that says "empty".
__global__ void hand_over(float* sums, int rounds) {
  float* value = dynamic_shared<float>();
  const unsigned warp = threadIdx.x / 32;
  float sum = 0;
  for (int round = 0; round < rounds; ++round) {
    if (warp == 1) {
      if (round > 0) named_barrier_sync(2, 96);
      if (threadIdx.x == 32) *value = static_cast<float>(round + 1);
      named_barrier_arrive(1, 96);
    } else {
      named_barrier_sync(1, 96);
      sum += *value;
      if (round + 1 < rounds) named_barrier_arrive(2, 96);
    }
  }
  sums[threadIdx.x] = sum;
}

TEST_F(PrimitivesTest, NamedBarriers) {
  Buffer<float> sums(96, stream);
  launch(hand_over, 1, 96, sizeof(float), stream, sums.device_data(), 5);
  const std::vector<float> host = sums.to_host(stream);
  for (int i = 0; i < 96; ++i) EXPECT_EQ(host[i], i / 32 == 1 ? 0 : 15) << i;
}

// Matrix j, row r, column c holds 64 j + 8 r + c; the rows lie 48 bytes apart.
template <int kMatrices, bool kTransposed>
__global__ void load(std::uint32_t* result) {
  auto* tile = dynamic_shared<std::uint16_t>();
  for (unsigned i = threadIdx.x; i < 64 * kMatrices; i += 32) {
    tile[i / 8 * 24 + i % 8] = static_cast<std::uint16_t>(i);
  }
  __syncwarp();
  std::uint32_t fragments[kMatrices];
  const std::uint16_t* row = tile + threadIdx.x % (8 * kMatrices) * 24;
  if constexpr (kTransposed) {
    load_matrices_transposed(fragments, row);
  } else {
    load_matrices(fragments, row);
  }
  for (int j = 0; j < kMatrices; ++j) result[threadIdx.x * kMatrices + j] = fragments[j];
}

template <int kMatrices, bool kTransposed>
void expect_loaded(const Stream& stream) {
  Buffer<std::uint32_t> result(32 * kMatrices, stream);
  launch(load<kMatrices, kTransposed>, 1, 32, 8 * kMatrices * 48, stream, result.device_data());
  const auto host = result.to_host(stream);
  for (int lane = 0; lane < 32; ++lane) {
    for (int j = 0; j < kMatrices; ++j) {
      // 9.7.14.5.15: row lane / 4, columns 2 (lane % 4) and the next; .trans: of the transpose.
      const int fixed = lane / 4, moving = lane % 4 * 2;
      const int low = kTransposed ? 8 * moving + fixed : 8 * fixed + moving;
      const int high = kTransposed ? low + 8 : low + 1;
      EXPECT_EQ(host[lane * kMatrices + j] & 0xFFFF, 64 * j + low) << lane << ", matrix " << j;
      EXPECT_EQ(host[lane * kMatrices + j] >> 16, 64 * j + high) << lane << ", matrix " << j;
    }
  }
}

TEST_F(PrimitivesTest, Ldmatrix) {
  expect_loaded<1, false>(stream);
  expect_loaded<2, false>(stream);
  expect_loaded<4, false>(stream);
  expect_loaded<1, true>(stream);
  expect_loaded<2, true>(stream);
  expect_loaded<4, true>(stream);
}

enum class Type { kBf16, kF16, kTf32, kE4m3 };

template <Type kType>
__global__ void multiply(const std::uint32_t* a, const std::uint32_t* b, float* d) {
  const unsigned lane = threadIdx.x;
  std::uint32_t a_fragment[4], b_fragment[2];
  float d_fragment[4];
  for (int i = 0; i < 4; ++i) a_fragment[i] = a[lane * 4 + i];
  for (int i = 0; i < 2; ++i) b_fragment[i] = b[lane * 2 + i];
  for (int i = 0; i < 4; ++i) d_fragment[i] = d[lane * 4 + i];
  if constexpr (kType == Type::kBf16) mma_m16n8k16_bf16(d_fragment, a_fragment, b_fragment);
  if constexpr (kType == Type::kF16) mma_m16n8k16_f16(d_fragment, a_fragment, b_fragment);
  if constexpr (kType == Type::kTf32) mma_m16n8k8_tf32(d_fragment, a_fragment, b_fragment);
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 890
  if constexpr (kType == Type::kE4m3) mma_m16n8k32_e4m3(d_fragment, a_fragment, b_fragment);
#endif
  for (int i = 0; i < 4; ++i) d[lane * 4 + i] = d_fragment[i];
}

// A small integer in the type's bits.
std::uint32_t bits_of(Type type, int value) {
  const auto as_float = std::bit_cast<std::uint32_t>(static_cast<float>(value));
  if (type == Type::kTf32) return as_float | 0x1FFF;  // the low 13 bits do not count
  if (type == Type::kBf16) return as_float >> 16;
  if (value == 0) return 0;
  const int exponent = std::ilogb(value);
  const auto mantissa = static_cast<std::uint32_t>(std::ldexp(std::abs(value), 10 - exponent));
  return (value < 0 ? 0x8000u : 0u) | static_cast<std::uint32_t>(exponent + 15) << 10 |
         (mantissa & 1023);
}

int left_at(int row, int k) {
  return (row * 5 + k * 3) % 15 - 7;
}
int right_at(int k, int col) {
  return (k * 7 + col * 2) % 13 - 6;
}

template <Type kType>
void expect_product(const Stream& stream) {
  constexpr int kDepth = kType == Type::kTf32 ? 8 : 16, kPerRegister = kType == Type::kTf32 ? 1 : 2;
  std::vector<std::uint32_t> a(32 * 4), b(32 * 2);
  std::vector<float> d(32 * 4), expected(32 * 4);
  for (int lane = 0; lane < 32; ++lane) {
    const int group = lane >> 2, thread_in_group = lane % 4;
    for (int i = 0; i < 4 * kPerRegister; ++i) {
      // 9.7.14.5.8 (.f16, .bf16): row = groupID for ai where 0 <= i < 2 || 4 <= i < 6, else
      // groupID + 8; col = threadID_in_group * 2 + (i & 1), + 8 for i >= 4.
      // 9.7.14.5.7 (.tf32): row = groupID for a0, a2; col = threadID_in_group for a0, a1, else + 4.
      const bool first_rows = kDepth == 8 ? i % 2 == 0 : i < 2 || (i >= 4 && i < 6);
      const int row = first_rows ? group : group + 8;
      const int k = kDepth == 8 ? thread_in_group + (i >= 2 ? 4 : 0)
                                : thread_in_group * 2 + (i & 1) + (i >= 4 ? 8 : 0);
      a[lane * 4 + i / kPerRegister] |= bits_of(kType, left_at(row, k)) << 16 * (i % kPerRegister);
    }
    for (int i = 0; i < 2 * kPerRegister; ++i) {
      const int k =
          kDepth == 8 ? thread_in_group + 4 * i : thread_in_group * 2 + (i & 1) + (i >= 2 ? 8 : 0);
      b[lane * 2 + i / kPerRegister] |= bits_of(kType, right_at(k, group))
                                        << 16 * (i % kPerRegister);
    }
    for (int i = 0; i < 4; ++i) {
      const int row = i < 2 ? group : group + 8, col = thread_in_group * 2 + (i & 1);
      d[lane * 4 + i] = static_cast<float>(row - col);
      int sum = row - col;
      for (int k = 0; k < kDepth; ++k) sum += left_at(row, k) * right_at(k, col);
      expected[lane * 4 + i] = static_cast<float>(sum);
    }
  }
  const Buffer<std::uint32_t> device_a(a, stream), device_b(b, stream);
  Buffer<float> device_d(d, stream);
  launch(multiply<kType>, 1, 32, 0, stream, device_a.device_data(), device_b.device_data(),
         device_d.device_data());
  EXPECT_EQ(device_d.to_host(stream), expected);
}

TEST_F(PrimitivesTest, MmaBf16) {
  expect_product<Type::kBf16>(stream);
}
TEST_F(PrimitivesTest, MmaF16) {
  expect_product<Type::kF16>(stream);
}
__global__ void round_all_to_tf32(const float* x, std::uint32_t* rounded) {
  rounded[threadIdx.x] = round_to_tf32(x[threadIdx.x]);
}

// 9.7.9.22: .rna rounds to the nearest, ties away from zero. 11 bits of 1 + 2^-11 are a tie.
TEST_F(PrimitivesTest, RoundToTf32) {
  const float infinity = std::numeric_limits<float>::infinity();
  const std::vector<float> x = {1 + 0x1p-11f,  1 + 0x1.fp-12f,  -1 - 0x1p-11f, 1 + 0x1.8p-10f,
                                0x1.fffffep9f, 0x1.fffffep127f, -infinity,     0};
  const std::vector<float> expected = {1 + 0x1p-10f, 1,        -1 - 0x1p-10f, 1 + 0x1p-9f,
                                       0x1p10f,      infinity, -infinity,     0};
  const Buffer<float> device_x(x, stream);
  Buffer<std::uint32_t> device_rounded(std::ssize(x), stream);
  launch(round_all_to_tf32, 1, static_cast<unsigned>(x.size()), 0, stream, device_x.device_data(),
         device_rounded.device_data());
  const std::vector<std::uint32_t> rounded = device_rounded.to_host(stream);
  for (std::size_t i = 0; i < x.size(); ++i) {
    EXPECT_EQ(std::bit_cast<float>(rounded[i] & ~0x1FFFu), expected[i]) << x[i];
  }
  // Two NaNs that would have no bit left if the low ones were cut off.
  const std::vector<float> nans = {std::bit_cast<float>(0x7FFFFFFFu),
                                   std::bit_cast<float>(0x7F800001u),
                                   std::bit_cast<float>(0xFF800001u)};
  launch(round_all_to_tf32, 1, static_cast<unsigned>(nans.size()), 0, stream,
         Buffer<float>(nans, stream).device_data(), device_rounded.device_data());
  const std::vector<std::uint32_t> of_nans = device_rounded.to_host(stream);
  for (std::size_t i = 0; i < nans.size(); ++i) {
    EXPECT_TRUE(std::isnan(std::bit_cast<float>(of_nans[i] & ~0x1FFFu))) << i;
  }
}
TEST_F(PrimitivesTest, MmaTf32) {
  expect_product<Type::kTf32>(stream);
}

// 9.7.14.5.10: row = groupID for ai where 0 <= i < 4 || 8 <= i < 12, else groupID + 8; col =
// threadID_in_group * 4 + (i & 3), + 16 for i >= 8. b: row = threadID_in_group * 4 + (i & 3), + 16
// for i >= 4; col = groupID.
std::uint32_t e4m3_of(int value) {
  if (value == 0) return 0;
  const int exponent = std::ilogb(value);
  const auto mantissa = static_cast<std::uint32_t>(std::ldexp(std::abs(value), 3 - exponent));
  return (value < 0 ? 0x80u : 0u) | static_cast<std::uint32_t>(exponent + 7) << 3 | (mantissa & 7);
}

TEST_F(PrimitivesTest, MmaE4m3) {
  std::vector<std::uint32_t> a(32 * 4), b(32 * 2);
  std::vector<float> expected(32 * 4);
  for (int lane = 0; lane < 32; ++lane) {
    const int group = lane >> 2, in_group = lane % 4;
    for (int i = 0; i < 16; ++i) {
      const int row = i < 4 || (i >= 8 && i < 12) ? group : group + 8;
      const int k = in_group * 4 + (i & 3) + (i >= 8 ? 16 : 0);
      a[lane * 4 + i / 4] |= e4m3_of(left_at(row, k)) << i % 4 * 8;
    }
    for (int i = 0; i < 8; ++i) {
      const int k = in_group * 4 + (i & 3) + (i >= 4 ? 16 : 0);
      b[lane * 2 + i / 4] |= e4m3_of(right_at(k, group)) << i % 4 * 8;
    }
    for (int i = 0; i < 4; ++i) {
      const int row = i < 2 ? group : group + 8, col = in_group * 2 + (i & 1);
      int sum = 3;
      for (int k = 0; k < 32; ++k) sum += left_at(row, k) * right_at(k, col);
      expected[lane * 4 + i] = static_cast<float>(sum);
    }
  }
  const Buffer<std::uint32_t> device_a(a, stream), device_b(b, stream);
  Buffer<float> d(std::vector<float>(32 * 4, 3), stream);
  launch(multiply<Type::kE4m3>, 1, 32, 0, stream, device_a.device_data(), device_b.device_data(),
         d.device_data());
  EXPECT_EQ(d.to_host(stream), expected);
}

__global__ void convert_e4m3(const float* values, std::uint16_t* packed, float* unpacked) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 890
  const unsigned i = threadIdx.x;
  packed[i] = pack_e4m3(values[2 * i], values[2 * i + 1]);
  const E4m3Pair pair = unpack_e4m3(packed[i]);
  unpacked[2 * i] = pair.low;
  unpacked[2 * i + 1] = pair.high;
#endif
}

// 9.7.9.22 and 5.2.3: sign, four bits of exponent with bias 7, three of mantissa; no infinity; ties
// to even; .satfinite.
TEST_F(PrimitivesTest, E4m3) {
  const std::vector<float> values{1,   -1.5f,    448,     1e9f,     -1e9f, 0.0f,
                                  17,  19,       0x1p-9f, 0x1p-10f, 464,   -0.0146484375f,
                                  240, 0x3p-10f, 0.0625f, -0x1p-11f};
  const std::vector<std::uint16_t> expected{0xBC38, 0x7E7E, 0x00FE, 0x5A58,
                                            0x0001, 0x887E, 0x0277, 0x8018};
  const std::vector<float> back{1,       -1.5f, 448, 448,        -448, 0,       16,      20,
                                0x1p-9f, 0,     448, -0.015625f, 240,  0x1p-8f, 0.0625f, -0.0f};
  const Buffer<float> device_values(values, stream);
  Buffer<std::uint16_t> packed(8, stream);
  Buffer<float> unpacked(16, stream);
  launch(convert_e4m3, 1, 8, 0, stream, device_values.device_data(), packed.device_data(),
         unpacked.device_data());
  EXPECT_EQ(packed.to_host(stream), expected);
  EXPECT_EQ(unpacked.to_host(stream), back);
}

__global__ void exponentials(float* values) {
  values[threadIdx.x] = exp2_flushed(values[threadIdx.x]);
}

// 9.7.3.21: a relative error of at most 2^-22; subnormals become 0; infinities and NaN.
TEST_F(PrimitivesTest, Ex2) {
  const std::vector<float> values{0, 1, -1.5f, 10.25f, -126, 127.5f, -0x1p-140f, -20.75f};
  const std::vector<float> special{-126.5f, -127, -1000, -INFINITY, INFINITY, 128, NAN, -149};
  const auto run = [&](const std::vector<float>& x) {
    Buffer<float> on_device(x, stream);
    launch(exponentials, 1, static_cast<unsigned>(x.size()), 0, stream, on_device.device_data());
    return on_device.to_host(stream);
  };
  const std::vector<float> results = run(values);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double expected = std::exp2(static_cast<double>(values[i]));
    EXPECT_NEAR(results[i], expected, 0x1p-22 * expected) << values[i];
  }
  const std::vector<float> of_special = run(special);
  for (const std::size_t i : {0, 1, 2, 3, 7}) EXPECT_EQ(of_special[i], 0) << special[i];
  for (const std::size_t i : {4, 5}) EXPECT_EQ(of_special[i], INFINITY) << special[i];
  EXPECT_TRUE(std::isnan(of_special[6]));
}

__global__ void reciprocals(float* values) {
  values[threadIdx.x] = reciprocal_flushed(values[threadIdx.x]);
}

// 9.7.3.13: within one unit of the last place, 2^-23 of a result at most; subnormals are 0.
TEST_F(PrimitivesTest, Rcp) {
  const std::vector<float> values{1, -3, 0x1.fffffep0f, 0x1.000002p0f, 1e30f, -7e-30f, 0x1p126f};
  const std::vector<float> special{0, -0x1p-140f, 0x1p127f, INFINITY, NAN};
  const auto run = [&](const std::vector<float>& x) {
    Buffer<float> on_device(x, stream);
    launch(reciprocals, 1, static_cast<unsigned>(x.size()), 0, stream, on_device.device_data());
    return on_device.to_host(stream);
  };
  const std::vector<float> results = run(values);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double expected = 1 / static_cast<double>(values[i]);
    EXPECT_NEAR(results[i], expected, 0x1p-23 * std::abs(expected)) << values[i];
  }
  const std::vector<float> of_special = run(special);
  EXPECT_EQ(of_special[0], INFINITY);
  EXPECT_EQ(of_special[1], -INFINITY);
  for (const std::size_t i : {2, 3}) EXPECT_EQ(of_special[i], 0) << special[i];
  EXPECT_TRUE(std::isnan(of_special[4]));
}

__global__ void sigmoids(float* values, int count) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < count) values[i] = approximate_sigmoid(values[i]);
}

TEST_F(PrimitivesTest, TheApproximateSigmoidIsWithinItsBound) {
  std::vector<float> values;
  for (int i = -8700; i <= 8800; ++i) values.push_back(static_cast<float>(i) / 100.1f);
  const auto count = static_cast<int>(values.size());
  Buffer<float> on_device(values, stream);
  launch(sigmoids, static_cast<unsigned>((count + 127) / 128), 128, 0, stream,
         on_device.device_data(), count);
  const std::vector<float> results = on_device.to_host(stream);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double x = values[i], power = std::exp(-x), expected = 1 / (1 + power);
    const double bound = (5 + 1.3 * std::abs(x)) * power / (1 + power) + 3;
    EXPECT_NEAR(results[i], expected, 0x1p-24 * bound * expected) << values[i];
  }
}

// 9.7.9.25.3: two groups under way; each thread reads what another one copied.
__global__ void reverse(const float4* from, float4* to, int tiles) {
  auto* stages = dynamic_shared<float4>();  // [2, 32]
  const unsigned i = threadIdx.x;
  copy_async(stages + i, from + i);
  copy_async_commit();
  for (int t = 0; t < tiles; ++t) {
    if (t + 1 < tiles) {
      const auto next = static_cast<unsigned>(t + 1);
      copy_async(stages + next % 2 * 32 + i, from + next * 32 + i);
    }
    copy_async_commit();
    copy_async_wait<1>();
    __syncthreads();
    to[static_cast<unsigned>(t) * 32 + i] = stages[static_cast<unsigned>(t) % 2 * 32 + 31 - i];
    __syncthreads();
  }
}

TEST_F(PrimitivesTest, CpAsync) {
  constexpr int kTiles = 5;
  std::vector<float4> host(32 * kTiles);
  for (int i = 0; i < 32 * kTiles; ++i) {
    const auto value = static_cast<float>(i);
    host[i] = make_float4(value, value + 0.25f, value + 0.5f, value + 0.75f);
  }
  const Buffer<float4> from(host, stream);
  Buffer<float4> to(32 * kTiles, stream);
  launch(reverse, 1, 32, 2 * 32 * sizeof(float4), stream, from.device_data(), to.device_data(),
         kTiles);
  const auto reversed = to.to_host(stream);
  for (int i = 0; i < 32 * kTiles; ++i) {
    const int source = i / 32 * 32 + 31 - i % 32;
    EXPECT_EQ(reversed[i].x, static_cast<float>(source));
    EXPECT_EQ(reversed[i].w, static_cast<float>(source) + 0.75f);
  }
}

}  // namespace
}  // namespace serrate
