// The 16 and 8 bit types on the simulated device. Values by hand, from the formats' definitions:
// bfloat16 1-8-7, half 1-5-10, e4m3 1-4-3 (no infinity, NaN s.1111.111), e5m2 1-5-2.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <cmath>
#include <limits>

#include "tests/simt/planted_bug.h"

namespace simt {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

TEST(SmallFloats, EveryNumberComesBack) {
  for (unsigned bits = 0; bits < 65536; ++bits) {
    const auto word = static_cast<unsigned short>(bits);
    const __nv_bfloat16 b = __ushort_as_bfloat16(word);
    const __half h = __ushort_as_half(word);
    if (!__hisnan(b)) {
      ASSERT_EQ(__bfloat16_as_ushort(__float2bfloat16(__bfloat162float(b))), word);
      ASSERT_EQ(__bfloat16_as_ushort(__float2bfloat16_rz(__bfloat162float(b))), word);
    }
    if (!__hisnan(h)) {
      ASSERT_EQ(__half_as_ushort(__float2half(__half2float(h))), word);
      ASSERT_EQ(__half_as_ushort(__float2half_ru(__half2float(h))), word);
    }
  }
  for (unsigned bits = 0; bits < 256; ++bits) {
    __nv_fp8_e4m3 x;
    __nv_fp8_e5m2 y;
    x.__x = y.__x = static_cast<unsigned char>(bits);
    const float e4m3 = float(x), e5m2 = float(y);
    EXPECT_EQ(std::isnan(e4m3), (bits & 0x7F) == 0x7F);
    EXPECT_EQ(std::isnan(e5m2), (bits & 0x7F) > 0x7C);
    EXPECT_EQ(std::isinf(e5m2), (bits & 0x7F) == 0x7C);
    if (!std::isnan(e4m3)) {
      ASSERT_EQ(__nv_fp8_e4m3(e4m3).__x, bits);
    }
    if (std::isfinite(e5m2)) {
      EXPECT_EQ(__nv_fp8_e5m2(e5m2).__x, bits);
    }
  }
}

TEST(SmallFloats, Bfloat16Rounds) {
  // Numbers near 1 are 2^-7 apart.
  const float step = 1.0f / 128, half = step / 2;
  EXPECT_EQ(float(__float2bfloat16(1 + half)), 1.0f);  // a tie, to even
  EXPECT_EQ(float(__float2bfloat16(1 + step + half)), 1 + 2 * step);
  EXPECT_EQ(float(__float2bfloat16(1 + half + 0x1p-20f)), 1 + step);
  EXPECT_EQ(float(__float2bfloat16_rz(-1 - 0.99f * step)), -1.0f);
  EXPECT_EQ(float(__float2bfloat16_rd(-1 - 0.01f * step)), -1 - step);
  EXPECT_EQ(float(__float2bfloat16_ru(1 + 0.01f * step)), 1 + step);
  EXPECT_EQ(float(__float2bfloat16_ru(-1 - 0.99f * step)), -1.0f);
  EXPECT_EQ(float(__float2bfloat16(3.4e38f)), kInf);
  EXPECT_EQ(__bfloat16_as_ushort(__float2bfloat16_rz(3.4e38f)), 0x7F7F);
  EXPECT_EQ(__bfloat16_as_ushort(__float2bfloat16(NAN)), 0x7FFF);
  EXPECT_EQ(float(__float2bfloat16(0x1p-133f)), 0x1p-133f);  // the smallest subnormal
  EXPECT_EQ(__bfloat16_as_ushort(__float2bfloat16(-0.0f)), 0x8000);
  // A double that float would round to a tie.
  EXPECT_EQ(float(__double2bfloat16(1 + half + 0x1p-40)), 1 + step);
}

TEST(SmallFloats, HalfRounds) {
  const float step = 0x1p-10f;
  EXPECT_EQ(float(__float2half(1 + step / 2)), 1.0f);
  EXPECT_EQ(float(__float2half(1 + 1.5f * step)), 1 + 2 * step);
  EXPECT_EQ(float(__float2half(65504)), 65504.0f);
  EXPECT_EQ(float(__float2half(65519.9f)), 65504.0f);
  EXPECT_EQ(float(__float2half(65520)), kInf);
  EXPECT_EQ(float(__float2half_rz(1e9f)), 65504.0f);
  EXPECT_EQ(float(__float2half(0x1p-24f)), 0x1p-24f);
  EXPECT_EQ(float(__float2half(0x1p-25f)), 0.0f);
  EXPECT_EQ(float(__float2half_ru(0x1p-30f)), 0x1p-24f);
}

TEST(SmallFloats, EightBitsRoundAndSaturate) {
  EXPECT_EQ(float(__nv_fp8_e4m3(1.0625f)), 1.0f);  // 1 + 1/16: a tie between 1 and 1.125
  EXPECT_EQ(float(__nv_fp8_e4m3(1.1875f)), 1.25f);
  EXPECT_EQ(float(__nv_fp8_e4m3(1000.0f)), 448.0f);
  EXPECT_EQ(float(__nv_fp8_e4m3(-kInf)), -448.0f);
  EXPECT_EQ(float(__nv_fp8_e5m2(1e9f)), 57344.0f);
  EXPECT_EQ(float(__nv_fp8_e4m3(0x1p-9f)), 0x1p-9f);
  EXPECT_EQ(float(__nv_fp8_e4m3(0x1p-10f)), 0.0f);
  EXPECT_EQ(__nv_cvt_float_to_fp8(1000, __NV_NOSAT, __NV_E4M3), 0x7F);
  EXPECT_EQ(__nv_cvt_float_to_fp8(464, __NV_NOSAT, __NV_E4M3), 0x7E);  // the tie goes to 448
  EXPECT_EQ(__nv_cvt_float_to_fp8(1e9f, __NV_NOSAT, __NV_E5M2), 0x7C);
  EXPECT_EQ(__nv_cvt_float_to_fp8(-1.5f, __NV_SATFINITE, __NV_E4M3), 0xBC);
  EXPECT_EQ(float(__half(__nv_cvt_fp8_to_halfraw(0xBC, __NV_E4M3))), -1.5f);
  const float4 four = float4(__nv_fp8x4_e4m3(make_float4(1, -2, 0.5f, 448)));
  EXPECT_EQ(four.x, 1);
  EXPECT_EQ(four.y, -2);
  EXPECT_EQ(four.z, 0.5f);
  EXPECT_EQ(four.w, 448);
}

TEST(SmallFloats, Arithmetic) {
  const __nv_bfloat16 one = 1.0f, tiny = 0x1p-9f;
  EXPECT_EQ(float(one + tiny), 1.0f);
  EXPECT_EQ(float(__hfma(one, one, tiny) - one), 0.0f);
  EXPECT_EQ(float(__hmul(__nv_bfloat16(1.0078125f), __nv_bfloat16(1.0078125f))), 1.015625f);
  EXPECT_EQ(float(__hdiv(one, __nv_bfloat16(3.0f))), 0.333984375f);  // 171 / 512
  EXPECT_EQ(float(__hneg(one)), -1.0f);
  EXPECT_TRUE(one > tiny);
  EXPECT_EQ(float(__hmax(__nv_bfloat16(NAN), one)), 1.0f);
  EXPECT_EQ(__bfloat16_as_ushort(__hmax(__nv_bfloat16(-0.0f), __nv_bfloat16(0.0f))), 0);
  const float2 sum = __bfloat1622float2(__hadd2(__floats2bfloat162_rn(1, 2), {one, one}));
  EXPECT_EQ(sum.x, 2);
  EXPECT_EQ(sum.y, 3);
  EXPECT_EQ(__low2float(__floats2half2_rn(3, 4)), 3);
  EXPECT_EQ(__high2float(__floats2half2_rn(3, 4)), 4);
  static_assert(sizeof(__nv_bfloat162) == 4 && alignof(__nv_bfloat162) == 4);
}

__global__ void add_pairs(__nv_bfloat162* sums) {
  atomicAdd(&sums[threadIdx.x % 2], __floats2bfloat162_rn(1.0f, 0.5f));
}

TEST(SmallFloats, PairsAddAtomically) {
  const Array<__nv_bfloat162> sums(std::vector<__nv_bfloat162>(2, __float2bfloat162_rn(0)));
  run(add_pairs, 2, 64, 0, nullptr, sums.data());
  for (const __nv_bfloat162 sum : sums.host()) {
    EXPECT_EQ(float(sum.x), 64.0f);
    EXPECT_EQ(float(sum.y), 32.0f);
  }
  expect_nothing_found();
}

}  // namespace
}  // namespace simt
