// wgmma against the PTX manual (PTX ISA 9.1, 9.7.15), on a GPU of sm_90a and on the simulated
// device. Layouts are written down from the manual (wgmma_layout.cuh), not from the headers.
#include "kernels/cuda/wgmma.cuh"

#include <gtest/gtest.h>

#include <vector>

#include "kernels/cuda/bulk_copy.cuh"
#include "kernels/cuda/primitives.cuh"
#include "kernels/cuda/tensor_map.h"
#include "serrate/buffer.h"
#include "src/core/launch.cuh"
#include "tests/kernels/cuda/wgmma_layout.cuh"

#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define SERRATE_TEST_WGMMA 1
#endif

namespace serrate {
namespace {

class WgmmaTest : public testing::Test {
 protected:
  const Stream stream{Device::cuda(0)};
};

// Two products of a warpgroup. An operand lies in shared memory as the host laid it out; `step` is
// how much further on that of the second product begins.
struct Operand {
  const std::uint32_t* words;
  unsigned bytes, step;
  WgmmaTile tile;
};

template <WgmmaType kType, int kCols, WgmmaMajor kA, WgmmaMajor kB, bool kRegisters>
__global__ void multiply(Operand a, Operand b, float* d) {
#ifdef SERRATE_TEST_WGMMA
  auto* const a_tile = dynamic_shared<std::uint32_t>();
  std::uint32_t* const b_tile = a_tile + a.bytes / 4;  // aligned to 1024 bytes too
  if (!kRegisters) {
    for (unsigned i = threadIdx.x; i < a.bytes / 4; i += 128) a_tile[i] = a.words[i];
  }
  for (unsigned i = threadIdx.x; i < b.bytes / 4; i += 128) b_tile[i] = b.words[i];
  fence_async_proxy_shared();
  __syncthreads();
  float sums[kCols / 2];
  for (float& sum : sums) sum = 1;
  wgmma_keep(sums);
  [[maybe_unused]] std::uint32_t fragments[kSteps][4];
  if constexpr (kRegisters) {
    for (unsigned s = 0; s < kSteps; ++s) {
      for (unsigned i = 0; i < 4; ++i) fragments[s][i] = a.words[(s * 128 + threadIdx.x) * 4 + i];
    }
  }
  wgmma_fence();
#pragma unroll
  for (unsigned s = 0; s < kSteps; ++s) {
    const auto scale = s == 0 ? WgmmaScale::kOverwrite : WgmmaScale::kAdd;
    const std::uint64_t b_at =
        wgmma_descriptor(reinterpret_cast<const char*>(b_tile) + s * b.step, b.tile);
    if constexpr (kRegisters) {
      wgmma<kType, kCols, kB>(sums, fragments[s], b_at, scale);
    } else {
      wgmma<kType, kCols, kA, kB>(
          sums, wgmma_descriptor(reinterpret_cast<const char*>(a_tile) + s * a.step, a.tile), b_at,
          scale);
    }
  }
  wgmma_commit();
  wgmma_wait<0>();
  wgmma_keep(sums);
  for (int r = 0; r < kCols / 2; ++r) d[static_cast<int>(threadIdx.x) * (kCols / 2) + r] = sums[r];
#endif
}

int a_at(unsigned row, unsigned k) {
  return static_cast<int>((row * 5 + k * 3) % 13) - 6;
}
int b_at(unsigned col, unsigned k) {
  return static_cast<int>((k * 7 + col * 2) % 11) - 5;
}

// 9.7.15.5.1: a in registers, for .bf16 and .f16, of warp w: rows 16 w and up; register 0: row
// groupID, k = 2 threadID_in_group + (0, 1); 1: row + 8; 2 and 3: the same with k + 8. The other
// types have 4 / size elements in a register.
std::vector<std::uint32_t> fragments_of_a(WgmmaType type) {
  const unsigned in_register = 4 / bytes_of(type), depth = 32 / bytes_of(type);
  std::vector<std::uint32_t> result(kSteps * 128 * 4);
  for (unsigned s = 0; s < kSteps; ++s) {
    for (unsigned t = 0; t < 128; ++t) {
      const unsigned group = t % 32 >> 2, in_group = t % 4;
      for (unsigned r = 0; r < 4; ++r) {
        const unsigned row = 16 * (t / 32) + group + (r == 1 || r == 3 ? 8 : 0);
        for (unsigned i = 0; i < in_register; ++i) {
          const unsigned k = in_group * in_register + i + (r >= 2 ? depth / 2 : 0);
          result[(s * 128 + t) * 4 + r] |= bits_of(type, a_at(row, s * depth + k))
                                           << i * 8 * bytes_of(type);
        }
      }
    }
  }
  return result;
}

enum class Source { kShared, kRegisters };

template <WgmmaType kType, int kCols, WgmmaMajor kA, WgmmaMajor kB, Source kSource>
void expect_product(WgmmaSwizzle a_swizzle, WgmmaSwizzle b_swizzle, const Stream& stream) {
  SCOPED_TRACE(testing::Message() << "type " << static_cast<int>(kType) << ", " << kCols
                                  << " columns, spans " << span_of(a_swizzle) << " and "
                                  << span_of(b_swizzle));
  const Layout a{kType, kA, a_swizzle, 64}, b{kType, kB, b_swizzle, kCols};
  constexpr bool kRegisters = kSource == Source::kRegisters;
  const Buffer<std::uint32_t> a_words(kRegisters ? fragments_of_a(kType) : a.words(a_at), stream);
  const Buffer<std::uint32_t> b_words(b.words(b_at), stream);
  Buffer<float> d(128 * kCols / 2, stream);
  const auto kernel = multiply<kType, kCols, kA, kB, kRegisters>;
  const std::size_t shared = a.bytes() + b.bytes();
  cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  static_cast<int>(shared)));
  launch(kernel, 1, 128, shared, stream,
         Operand{a_words.device_data(), a.bytes(), a.step(), a.tile()},
         Operand{b_words.device_data(), b.bytes(), b.step(), b.tile()}, d.device_data());
  const std::vector<float> host = d.to_host(stream);
  int wrong = 0;
  for (unsigned t = 0; t < 128; ++t) {
    for (unsigned r = 0; r < kCols / 2; ++r) {
      // 9.7.15.5.1.1: d of thread t: row 16 (t / 32) + groupID, + 8 for registers 2 and 3 of each
      // four; column 8 (r / 4) + 2 threadID_in_group + r % 2.
      const unsigned row = 16 * (t / 32) + t % 32 / 4 + (r % 4 >= 2 ? 8 : 0);
      const unsigned col = 8 * (r / 4) + 2 * (t % 4) + r % 2;
      int sum = 0;
      for (unsigned k = 0; k < a.depth(); ++k) sum += a_at(row, k) * b_at(col, k);
      const float is = host[t * (kCols / 2) + r];
      if (is == static_cast<float>(sum) || ++wrong > 3) continue;
      EXPECT_EQ(is, static_cast<float>(sum)) << "row " << row << ", column " << col;
    }
  }
  EXPECT_EQ(wrong, 0);
}

constexpr WgmmaMajor kDepth = WgmmaMajor::kDepth, kRows = WgmmaMajor::kRows;
constexpr WgmmaSwizzle kSwizzles[] = {WgmmaSwizzle::kNone, WgmmaSwizzle::k32Bytes,
                                      WgmmaSwizzle::k64Bytes, WgmmaSwizzle::k128Bytes};

TEST_F(WgmmaTest, Bf16) {
  using enum WgmmaType;
  for (const WgmmaSwizzle swizzle : kSwizzles) {
    expect_product<kBf16, 64, kDepth, kDepth, Source::kShared>(swizzle, swizzle, stream);
    expect_product<kBf16, 64, kRows, kDepth, Source::kShared>(swizzle, swizzle, stream);
    expect_product<kBf16, 64, kDepth, kRows, Source::kShared>(swizzle, swizzle, stream);
    expect_product<kBf16, 128, kRows, kRows, Source::kShared>(swizzle, swizzle, stream);
    expect_product<kBf16, 64, kDepth, kRows, Source::kRegisters>(swizzle, swizzle, stream);
  }
  expect_product<kBf16, 64, kDepth, kRows, Source::kShared>(WgmmaSwizzle::k128Bytes,
                                                            WgmmaSwizzle::kNone, stream);
}

TEST_F(WgmmaTest, Columns) {
  using enum WgmmaType;
  const WgmmaSwizzle swizzle = WgmmaSwizzle::k128Bytes;
  expect_product<kBf16, 8, kDepth, kDepth, Source::kShared>(swizzle, swizzle, stream);
  expect_product<kBf16, 24, kDepth, kDepth, Source::kRegisters>(swizzle, swizzle, stream);
  expect_product<kBf16, 136, kDepth, kDepth, Source::kShared>(swizzle, swizzle, stream);
  expect_product<kBf16, 256, kDepth, kDepth, Source::kShared>(swizzle, swizzle, stream);
}

TEST_F(WgmmaTest, F16) {
  using enum WgmmaType;
  for (const WgmmaSwizzle swizzle : kSwizzles) {
    expect_product<kF16, 64, kDepth, kRows, Source::kShared>(swizzle, swizzle, stream);
  }
  expect_product<kF16, 64, kDepth, kRows, Source::kRegisters>(WgmmaSwizzle::k128Bytes,
                                                              WgmmaSwizzle::k128Bytes, stream);
}

TEST_F(WgmmaTest, Tf32) {
  using enum WgmmaType;
  for (const WgmmaSwizzle swizzle : kSwizzles) {
    expect_product<kTf32, 32, kDepth, kDepth, Source::kShared>(swizzle, swizzle, stream);
    expect_product<kTf32, 32, kDepth, kDepth, Source::kRegisters>(swizzle, swizzle, stream);
  }
}

TEST_F(WgmmaTest, E4m3) {
  using enum WgmmaType;
  for (const WgmmaSwizzle swizzle : kSwizzles) {
    expect_product<kE4m3, 32, kDepth, kDepth, Source::kShared>(swizzle, swizzle, stream);
    expect_product<kE4m3, 32, kDepth, kDepth, Source::kRegisters>(swizzle, swizzle, stream);
  }
}

// 9.7.15.5.1.2.2: the fields of a descriptor. All threads have it.
__global__ void describe(std::uint64_t* descriptors) {
  const auto at = shared_address(dynamic_shared<char>());
  const auto begin = static_cast<std::uint64_t>(at >> 4);
  descriptors[0] =
      wgmma_descriptor(dynamic_shared<char>() + 0x2400, {16, 1024, WgmmaSwizzle::k128Bytes}) -
      begin;
  descriptors[1] =
      wgmma_descriptor(dynamic_shared<char>() + 0x2400, {8192, 1024, WgmmaSwizzle::k128Bytes}) -
      begin;
  descriptors[2] =
      wgmma_descriptor(dynamic_shared<char>(), {1024, 128, WgmmaSwizzle::kNone}) - begin;
  descriptors[3] =
      wgmma_descriptor(dynamic_shared<char>(), {16, 256, WgmmaSwizzle::k32Bytes}) - begin;
}

TEST_F(WgmmaTest, Descriptors) {
  Buffer<std::uint64_t> descriptors(4, stream);
  launch(describe, 1, 1, 0x2800, stream, descriptors.device_data());
  const std::vector<std::uint64_t> expected{0x4000004000010240, 0x4000004002000240,
                                            0x0000000800400000, 0xC000001000010000};
  EXPECT_EQ(descriptors.to_host(stream), expected);
}

// What attention does with a tile: s = q k' and o = s v, in bfloat16, by copies of boxes that are
// swizzled. q [64, 64], k and v [kKeys, 64]; s goes from accumulators to operands in registers.
constexpr int kKeys = 32, kDim = 64;
__global__ void attend(const __grid_constant__ CUtensorMap q_map,
                       const __grid_constant__ CUtensorMap k_map,
                       const __grid_constant__ CUtensorMap v_map, float* o) {
#ifdef SERRATE_TEST_WGMMA
  auto* const q = dynamic_shared<std::uint16_t>();
  std::uint16_t* const k = q + 64 * kDim;
  std::uint16_t* const v = k + kKeys * kDim;
  auto* const full = reinterpret_cast<Mbarrier*>(v + kKeys * kDim);
  if (threadIdx.x == 0) {
    mbarrier_init(full, 1);
    fence_mbarrier_init();
    mbarrier_arrive_expecting(full, (64 + 2 * kKeys) * kDim * 2);
    load_box(q, &q_map, {0, 0}, full);
    load_box(k, &k_map, {0, 0}, full);
    load_box(v, &v_map, {0, 0}, full);
  }
  __syncthreads();
  mbarrier_wait(full, 0);
  const WgmmaTile by_depth{16, 1024, WgmmaSwizzle::k128Bytes};
  float s[kKeys / 2];
  wgmma_keep(s);
  wgmma_fence();
#pragma unroll
  for (int d = 0; d < kDim; d += 16) {
    wgmma<WgmmaType::kBf16, kKeys>(s, wgmma_descriptor(q + d, by_depth),
                                   wgmma_descriptor(k + d, by_depth),
                                   d == 0 ? WgmmaScale::kOverwrite : WgmmaScale::kAdd);
  }
  wgmma_commit();
  wgmma_wait<0>();
  wgmma_keep(s);
  std::uint32_t p[kKeys / 16][4];
#pragma unroll
  for (int i = 0; i < kKeys / 4; ++i) {
    p[i / 4][i % 4] =
        __float_as_uint(s[2 * i]) >> 16 | (__float_as_uint(s[2 * i + 1]) & 0xFFFF0000);
  }
  float out[kDim / 2];
  wgmma_keep(out);
  wgmma_fence();
#pragma unroll
  for (int j = 0; j < kKeys / 16; ++j) {
    // 16 keys are two groups of 8, each of 1024 bytes; one panel is as wide as a row.
    wgmma<WgmmaType::kBf16, kDim, WgmmaMajor::kRows>(
        out, p[j], wgmma_descriptor(v + j * 16 * kDim, {0, 1024, WgmmaSwizzle::k128Bytes}),
        j == 0 ? WgmmaScale::kOverwrite : WgmmaScale::kAdd);
  }
  wgmma_commit();
  wgmma_wait<0>();
  wgmma_keep(out);
  const int t = static_cast<int>(threadIdx.x), row = 16 * (t / 32) + t % 32 / 4, col = 2 * (t % 4);
  for (int r = 0; r < kDim / 2; ++r) {
    o[(row + r / 2 % 2 * 8) * kDim + r / 4 * 8 + col + r % 2] = out[r];
  }
#endif
}

TEST_F(WgmmaTest, OnCopiedTiles) {
  const auto values = [](int rows, int factor) {
    std::vector<int> result(static_cast<std::size_t>(rows * kDim));
    for (int i = 0; i < rows * kDim; ++i) result[i] = (i / kDim * factor + i % kDim * 5) % 3 - 1;
    return result;
  };
  const std::vector<int> q = values(64, 4), k = values(kKeys, 2), v = values(kKeys, 1);
  const auto on_device = [&](const std::vector<int>& matrix) {
    std::vector<std::uint16_t> bits;
    for (const int value : matrix) {
      bits.push_back(static_cast<std::uint16_t>(bits_of(WgmmaType::kBf16, value)));
    }
    return Buffer<std::uint16_t>(bits, stream);
  };
  const Buffer<std::uint16_t> device_q = on_device(q), device_k = on_device(k),
                              device_v = on_device(v);
  const auto map = [](const Buffer<std::uint16_t>& matrix, std::uint32_t rows) {
    return make_tensor_map<2>({.type = CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                               .data = matrix.device_data(),
                               .sizes = {kDim, rows},
                               .strides = {kDim * 2},
                               .box = {kDim, rows},
                               .swizzle = CU_TENSOR_MAP_SWIZZLE_128B});
  };
  Buffer<float> o(64 * kDim, stream);
  launch(attend, 1, 128, (64 + 2 * kKeys) * kDim * 2 + 8, stream, map(device_q, 64),
         map(device_k, kKeys), map(device_v, kKeys), o.device_data());
  std::vector<float> expected(64 * kDim);
  for (int i = 0; i < 64; ++i) {
    for (int j = 0; j < kKeys; ++j) {
      int s = 0;  // at most 64, which a bfloat16 holds
      for (int d = 0; d < kDim; ++d) s += q[i * kDim + d] * k[j * kDim + d];
      for (int d = 0; d < kDim; ++d) {
        expected[i * kDim + d] += static_cast<float>(s * v[j * kDim + d]);
      }
    }
  }
  EXPECT_EQ(o.to_host(stream), expected);
}

}  // namespace
}  // namespace serrate
