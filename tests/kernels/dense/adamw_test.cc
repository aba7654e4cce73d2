#include "serrate/kernels/adamw.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "serrate/error.h"
#include "serrate/random.h"
#include "tests/support/test_array.h"
#include "tests/support/test_streams.h"

namespace serrate {
namespace {

class AdamWTest : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Device, AdamWTest, testing::ValuesIn(test_devices()), device_name);

// Step 1 moves by the learning rate against the gradient's sign, whatever its size.
TEST_P(AdamWTest, FirstStepByHand) {
  const TestArray<float> w{1, 1, 1}, m(3), v(3), g{100, -0.5f, 0}, decay{0, 0, 1};
  adamw_update({w.on(stream),
                m.on(stream),
                v.on(stream),
                g.on(stream),
                decay.on(stream),
                {.learning_rate = 0.1f, .weight_decay = 0.5f},
                1},
               stream);
  EXPECT_NEAR(w[0], 0.9, 1e-6);
  EXPECT_NEAR(w[1], 1.1, 1e-6);
  EXPECT_NEAR(w[2], 0.95, 1e-6);
  EXPECT_NEAR(m[0], 10, 1e-5);
  EXPECT_NEAR(v[1], 0.00025, 1e-8);
}

class AdamWSizes : public KernelTestOver<std::int64_t> {};
INSTANTIATE_TEST_SUITE_P(Sizes, AdamWSizes,
                         testing::Combine(testing::ValuesIn(test_devices()),
                                          testing::Values(0, 1, 15, 16, 100)));

TEST_P(AdamWSizes, TenStepsAgreeWithTheDefinitionInDouble) {
  const std::int64_t n = param();
  const AdamWOptions o{0.01f, 0.8f, 0.95f, 1e-6f, 0.1f};
  const TestArray<float> w(n), m(n), v(n), g(n), decay(n);
  std::vector<double> w2(n), m2(n), v2(n);
  for (std::int64_t i = 0; i < n; ++i) {
    w2[i] = w[i] = static_cast<float>(i) / 10 - 1;
    decay[i] = static_cast<float>(i % 2);
  }
  for (std::int64_t step = 1; step <= 10; ++step) {
    for (std::int64_t i = 0; i < n; ++i) {
      g[i] = static_cast<float>(random_uniform(step, RandomUse::kInit, 0, i) - 0.4);
      m2[i] = o.beta1 * m2[i] + (1 - double{o.beta1}) * g[i];
      v2[i] = o.beta2 * v2[i] + (1 - double{o.beta2}) * g[i] * g[i];
      const double m_hat = m2[i] / (1 - std::pow(o.beta1, step));
      const double v_hat = v2[i] / (1 - std::pow(o.beta2, step));
      w2[i] *= 1 - double{o.learning_rate} * o.weight_decay * decay[i];
      w2[i] -= o.learning_rate * m_hat / (std::sqrt(v_hat) + o.eps);
    }
    adamw_update(
        {w.on(stream), m.on(stream), v.on(stream), g.on(stream), decay.on(stream), o, step},
        threads(1 + static_cast<int>(step % 3)));
  }
  for (std::int64_t i = 0; i < n; ++i) {
    EXPECT_NEAR(w[i], w2[i], 1e-5) << i;
    EXPECT_NEAR(m[i], m2[i], 1e-6) << i;
    EXPECT_NEAR(v[i], v2[i], 1e-6) << i;
  }
}

TEST_P(AdamWSizes, RoundsItsCopy) {
  const std::int64_t n = param();
  const TestArray<float> w(n), m(n), v(n), g(n), decay(n);
  for (std::int64_t i = 0; i < n; ++i) w[i] = g[i] = 1 + static_cast<float>(i) / 300;
  const TestArray<BFloat16> rounded(n);
  adamw_update({w.on(stream),
                m.on(stream),
                v.on(stream),
                g.on(stream),
                decay.on(stream),
                {.learning_rate = 0.1f},
                1,
                rounded.on(stream)},
               stream);
  for (std::int64_t i = 0; i < n; ++i) EXPECT_EQ(float{rounded[i]}, float{BFloat16(w[i])}) << i;
}

TEST_P(AdamWTest, ItsCopyIsOfAllParameters) {
  const TestArray<float> w(2), m(2), v(2), g(2), decay(2);
  const TestArray<BFloat16> rounded(1);
  EXPECT_THROW(adamw_update({w.on(stream),
                             m.on(stream),
                             v.on(stream),
                             g.on(stream),
                             decay.on(stream),
                             {},
                             1,
                             rounded.on(stream)},
                            stream),
               Error);
}

TEST_P(AdamWTest, StepsCountFromOne) {
  EXPECT_THROW(adamw_update({{}, {}, {}, {}, {}, {}, 0}, stream), Error);
}

}  // namespace
}  // namespace serrate
