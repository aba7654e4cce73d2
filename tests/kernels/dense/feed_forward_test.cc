#include "serrate/kernels/feed_forward.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

#include "serrate/buffer.h"
#include "serrate/error.h"
#include "tests/kernels/test_matrix.h"
#include "tests/support/test_sizes.h"
#include "tests/support/test_streams.h"

namespace serrate {
namespace {

class FeedForwardTest : public KernelTestOver<Activation> {
 protected:
  struct Layers {
    std::int64_t n, in, wide, out;
    TestMatrix x = TestMatrix::random(n, in, 1), up = TestMatrix::random(wide, in, 2),
               up_bias = TestMatrix::random(1, wide, 3), down = TestMatrix::random(out, wide, 4),
               down_bias = TestMatrix::random(1, out, 5), d_y = TestMatrix::random(n, out, 6);
    // Gradients are added to something.
    TestMatrix d_up{wide, in, 1}, d_up_bias{1, wide, 1}, d_down{out, wide, 1},
        d_down_bias{1, out, 1}, y{n, out}, d_x{n, in};
  };

  /// `factor` is how the test's matrices become arguments, and `result` likewise.
  template <typename Factor, typename Result>
  void run(Layers& s, Precision precision, DataType type, Factor factor, Result result) {
    const std::int64_t size = s.n * s.wide * size_of(type);
    const std::int64_t needed =
        feed_forward_kept_bytes(param(), s.n, s.wide, type, stream.device());
    Buffer<std::byte> activated(size, stream), d_activated(size, stream), kept(needed + 1, stream);
    const auto wide = [&](Buffer<std::byte>& rows) {
      return OutputMatrix(rows.device_data(), type, s.n, s.wide);
    };
    const FeedForward forward{.x = factor(s.x),
                              .up = factor(s.up),
                              .up_bias = factor(s.up_bias),
                              .down = factor(s.down),
                              .down_bias = factor(s.down_bias),
                              .activation = param(),
                              .precision = precision,
                              .kept = kept.span().first(needed),
                              .activated = wide(activated),
                              .y = result(s.y)};
    feed_forward(forward, stream);
    const FeedForwardBackward backward{.forward = forward,
                                       .d_y = factor(s.d_y),
                                       .d_activated = wide(d_activated),
                                       .d_x = result(s.d_x),
                                       .d_up = s.d_up.on(stream),
                                       .d_down = s.d_down.on(stream),
                                       .d_up_bias = s.d_up_bias.row_on(stream),
                                       .d_down_bias = s.d_down_bias.row_on(stream)};
    feed_forward_backward(backward, stream);
    if (s.n > 0) expect_errors_of_what_does_not_fit(backward, kept.span());
  }

  /// In both passes, and nothing is added to the gradients. `kept` has a byte more than needed.
  void expect_errors_of_what_does_not_fit(const FeedForwardBackward& args,
                                          DeviceSpan<std::byte> kept) {
    const auto expect_errors = [&](const FeedForward& forward) {
      EXPECT_THROW(feed_forward(forward, stream), Error);
      FeedForwardBackward backward = args;
      backward.forward = forward;
      EXPECT_THROW(feed_forward_backward(backward, stream), Error);
    };
    FeedForward forward = args.forward;
    forward.kept = kept.first(kept.size() - 2);
    expect_errors(forward);
    forward.kept = kept.subspan(1);  // not aligned
    expect_errors(forward);
    forward = args.forward;
    forward.precision = forward.precision == Precision::kBf16 ? Precision::kFp32 : Precision::kBf16;
    expect_errors(forward);
    forward = args.forward;
    forward.up = forward.up.middle_rows(1, forward.up.rows);
    expect_errors(forward);
    forward = args.forward;
    forward.up_bias = forward.up_bias.columns(1, forward.up_bias.cols);
    EXPECT_THROW(feed_forward(forward, stream), Error);
    FeedForwardBackward backward = args;
    backward.d_up_bias = backward.d_up_bias.subspan(1);
    EXPECT_THROW(feed_forward_backward(backward, stream), Error);
  }

  /// How far a matrix is from what its definition gives, in its largest magnitude.
  void expect_definition(const Layers& s, double tolerance) {
    reference::Matrix x = s.x.in_double(), up = s.up.in_double(), up_bias = s.up_bias.in_double(),
                      down = s.down.in_double(), down_bias = s.down_bias.in_double();
    const reference::Matrix d_y = s.d_y.in_double();
    const auto y = [&] {
      const reference::Matrix inside = reference::linear(x, up, up_bias);
      return reference::linear(reference::activation(param(), inside), down, down_bias);
    };
    const auto loss = [&] { return reference::dot(d_y, y()); };
    const auto compare = [&](const TestMatrix& actual, reference::Matrix expected, double before,
                             const char* what) {
      ASSERT_TRUE(actual.guards_hold()) << what;
      double largest = 0;
      for (double& v : expected.values) largest = std::max(largest, std::abs(v += before));
      for (std::int64_t r = 0; r < expected.rows; ++r) {
        for (std::int64_t c = 0; c < expected.cols; ++c) {
          ASSERT_NEAR(actual(r, c), expected(r, c), tolerance * largest) << what;
        }
      }
    };
    compare(s.y, y(), 0, "y");
    compare(s.d_x, numeric_gradient(x, loss), 0, "d_x");
    compare(s.d_up, numeric_gradient(up, loss), 1, "d_up");
    compare(s.d_up_bias, numeric_gradient(up_bias, loss), 1, "d_up_bias");
    compare(s.d_down, numeric_gradient(down, loss), 1, "d_down");
    compare(s.d_down_bias, numeric_gradient(down_bias, loss), 1, "d_down_bias");
  }
};
INSTANTIATE_TEST_SUITE_P(All, FeedForwardTest,
                         testing::Combine(testing::ValuesIn(test_devices()),
                                          testing::Values(Activation::kGelu, Activation::kGeluTanh,
                                                          Activation::kRelu, Activation::kSilu)));

// With a width that cuBLASLt's epilogues take, and another; and no tokens.
TEST_P(FeedForwardTest, IsItsDefinition) {
  for (Layers s :
       {Layers{9, 5, 16, 3}, Layers{4, 3, 13, 6}, Layers{70, 2, 8, 1}, Layers{0, 5, 16, 3}}) {
    const auto on = [&](const TestMatrix& matrix) { return matrix.on(stream); };
    run(s, Precision::kFp32, DataType::kFloat32, on, on);
    expect_definition(s, 1e-5);
  }
}

TEST_P(FeedForwardTest, ItsInputGradientMayBeTheMemoryOfThatOfItsOutput) {
  Layers s{9, 5, 16, 5};
  const TestMatrix d_y = s.d_y;
  run(
      s, Precision::kFp32, DataType::kFloat32,
      [&](const TestMatrix& matrix) { return matrix.on(stream); },
      [&](const TestMatrix& matrix) { return (&matrix == &s.d_x ? s.d_y : matrix).on(stream); });
  s.d_x = s.d_y, s.d_y = d_y;
  expect_definition(s, 1e-5);
}

// Two roundings, of 2^-9 each, are inside the sums; errors are therefore held against the largest
// element.
TEST_P(FeedForwardTest, OfBfloat16) {
  if (!tests_run_on_devices()) GTEST_SKIP() << "the CPU has fp32 alone";
  for (Layers s : {Layers{9, 5, 16, 3}, Layers{4, 3, 13, 6}}) {
    for (TestMatrix* matrix : {&s.x, &s.up, &s.up_bias, &s.down, &s.down_bias, &s.d_y}) {
      *matrix = rounded_to_halves(*matrix);
    }
    const TestHalves y(s.y), d_x(s.d_x);
    std::vector<std::unique_ptr<TestHalves>> factors;
    const auto factor = [&](const TestMatrix& matrix) {
      return factors.emplace_back(std::make_unique<TestHalves>(matrix))->on(stream);
    };
    run(s, Precision::kBf16, DataType::kBFloat16, factor,
        [&](const TestMatrix& matrix) { return (&matrix == &s.y ? y : d_x).on(stream); });
    s.y = y.in_float(), s.d_x = d_x.in_float();
    expect_definition(s, 0x1p-7);
  }
}

}  // namespace
}  // namespace serrate
