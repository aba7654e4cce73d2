#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "kernels/simd/targets.h"

#define HWY_TARGET_INCLUDE "tests/kernels/simd/math_test.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/simd/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace serrate::HWY_NAMESPACE {

void exp_of_all(const std::vector<float>& x, std::vector<float>& y) {
  const hn::ScalableTag<float> d;
  for (std::size_t i = 0; i < x.size(); i += hn::Lanes(d)) {
    hn::StoreU(Exp(d, hn::LoadU(d, &x[i])), d, &y[i]);
  }
}

void exp2_of_all(const std::vector<float>& x, std::vector<float>& y) {
  const hn::ScalableTag<float> d;
  for (std::size_t i = 0; i < x.size(); i += hn::Lanes(d)) {
    hn::StoreU(Exp2(d, hn::LoadU(d, &x[i])), d, &y[i]);
  }
}

}  // namespace serrate::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace serrate {
namespace {

HWY_EXPORT(exp_of_all);
HWY_EXPORT(exp2_of_all);

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Floats from low to high, a few thousand ulps apart in every binade; padded to whole vectors.
std::vector<float> grid(float low, float high) {
  std::vector<float> x;
  for (int i = 0; i <= 1 << 20; ++i) {
    x.push_back(low + (high - low) * (static_cast<float>(i) / (1 << 20)));
  }
  for (float small = 1e-38f; small < 1; small *= 1.01f) x.insert(x.end(), {small, -small});
  x.resize((x.size() + 15) / 16 * 16, high);
  return x;
}

double error_in_ulps(float got, double want) {
  const float rounded = static_cast<float>(want);
  return std::abs(got - want) / (std::nextafter(rounded, kInfinity) - rounded);
}

template <typename F>
void for_every_target(F&& f) {
  for (const std::int64_t target : hwy::SupportedAndGeneratedTargets()) {
    hwy::SetSupportedTargetsForTest(target);
    SCOPED_TRACE(hwy::TargetName(target));
    f();
  }
  hwy::SetSupportedTargetsForTest(0);
}

TEST(SimdMath, ExpIsWithinOneAndAHalfUlp) {
  const std::vector<float> x = grid(-87.336f, 88.722f);
  for_every_target([&] {
    std::vector<float> y(x.size());
    HWY_DYNAMIC_DISPATCH(exp_of_all)(x, y);
    double worst = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      worst = std::max(worst, error_in_ulps(y[i], std::exp(static_cast<double>(x[i]))));
    }
    EXPECT_LT(worst, 1.5);
  });
}

TEST(SimdMath, Exp2IsWithinOneAndAHalfUlp) {
  const std::vector<float> x = grid(-125.999f, 127.999f);
  for_every_target([&] {
    std::vector<float> y(x.size());
    HWY_DYNAMIC_DISPATCH(exp2_of_all)(x, y);
    double worst = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      worst = std::max(worst, error_in_ulps(y[i], std::exp2(static_cast<double>(x[i]))));
    }
    EXPECT_LT(worst, 1.5);
  });
}

TEST(SimdMath, LimitsOfExp) {
  std::vector<float> x = {0.0f, -0.0f, -kInfinity, -1e30f, -87.34f, kInfinity, 1e30f, 88.73f};
  for (const char* payload : {"", "1", "0x100", "0x2AAAAA", "0x3FFFFF"}) {
    x.insert(x.end(), {std::nanf(payload), -std::nanf(payload)});
  }
  const std::size_t num_values = x.size();
  x.resize(32);
  for_every_target([&] {
    std::vector<float> e(32), e2(32);
    HWY_DYNAMIC_DISPATCH(exp_of_all)(x, e);
    HWY_DYNAMIC_DISPATCH(exp2_of_all)(x, e2);
    for (int i = 0; i < 2; ++i) EXPECT_EQ(e[i], 1.0f);
    for (int i = 2; i < 5; ++i) EXPECT_EQ(e[i], 0.0f);
    for (int i = 5; i < 8; ++i) EXPECT_EQ(e[i], kInfinity);
    for (int i = 0; i < 2; ++i) EXPECT_EQ(e2[i], 1.0f);
    for (int i = 2; i < 4; ++i) EXPECT_EQ(e2[i], 0.0f);
    for (std::size_t i = 8; i < num_values; ++i) {
      EXPECT_TRUE(std::isnan(e[i]));
      EXPECT_TRUE(std::isnan(e2[i]));
    }
  });
}

}  // namespace
}  // namespace serrate
#endif  // HWY_ONCE
