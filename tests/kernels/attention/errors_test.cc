// What is wrong with a call, where, and what to do about it: every check of
// kernels/attention/{attention,cpu/checks}.cc.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "serrate/error.h"
#include "serrate/kernels/attention_fp8.h"
#include "tests/kernels/attention/case.h"

namespace serrate {
namespace {

constexpr std::int64_t kRows = kTokensBefore + 8;

// What bad arguments point to.
struct Arrays {
  std::vector<std::int64_t> falling = {2, 9, 4}, negative = {-1, 3, 8}, times, boundaries = {0, 4};
  std::vector<std::int64_t> boundaries_that_fall = {4, 0};
  std::vector<float> bias, table, d_bias, d_table;

  Arrays() : times(kRows), bias(4096), table(12), d_bias(4096), d_table(12) {}
};

struct BadCall {
  std::function<void(AttentionBackward&, Arrays&)> spoil;
  std::string message;  // a part of it
};

// The message of the error that the call throws, with and without its backward.
std::string message_of(const AttentionBackward& args, bool is_backward) {
  try {
    if (is_backward) {
      jagged_attention_backward(args, Stream());
    } else {
      jagged_attention_forward(args.forward, Stream());
    }
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

Case good_case(TestStreams& host) {
  return {full_shape({4, 4}, {4, 4}, 2, 8), host};
}

void expect_errors(const std::vector<BadCall>& calls, bool only_backward) {
  for (const auto& [spoil, message] : calls) {
    TestStreams host(Device::cpu());
    Case c = good_case(host);
    c.run();
    Arrays arrays;
    AttentionBackward args = c.backward_args();
    ASSERT_EQ(message_of(args, true), "no error");
    spoil(args, arrays);
    for (const bool is_backward : {false, true}) {
      if (!is_backward && only_backward) continue;
      const std::string actual = message_of(args, is_backward);
      EXPECT_NE(actual.find(message), std::string::npos) << actual << "\nwithout: " << message;
    }
    if (only_backward) continue;
    EXPECT_THROW(jagged_attention_forward_workspace(args.forward, Stream()), Error) << message;
    EXPECT_THROW(jagged_attention_backward_workspace(args, Stream()), Error) << message;
  }
}

TEST(AttentionErrors, OfSizesAndOffsets) {
  expect_errors(
      {
          {[](auto& a, auto&) { a.forward.num_heads = 0; }, "num_heads is 0"},
          {[](auto& a, auto&) { a.forward.num_key_heads = -2; }, "num_key_heads, -2, must divide"},
          {[](auto& a, auto&) { a.forward.num_key_heads = 3; }, "num_key_heads, 3, must divide"},
          {[](auto& a, auto&) { a.forward.num_key_heads = 4; }, "must divide num_heads, 2"},
          {[](auto& a, auto&) { a.forward.head_dim = 0; }, "head_dim is 0 (must be 1 to 256)"},
          {[](auto& a, auto&) { a.forward.head_dim = 257; }, "head_dim is 257"},
          {[](auto& a, auto&) { a.forward.num_shared_queries = -1; }, "num_shared_queries is -1"},
          {[](auto& a, auto&) { a.forward.num_shared_queries = 4; },
           "query_offsets has 3 entries and key_offsets 3"},
          {[](auto& a, auto&) { a.forward.query_offsets = {}; }, "query_offsets has 0 entries"},
          {[](auto& a, auto&) { a.forward.key_offsets = {}; }, "key_offsets 0 (both must have"},
          {[](auto& a, auto&) { a.forward.key_offsets = a.forward.key_offsets.first(2); },
           "query_offsets has 3 entries and key_offsets 2"},
          {[](auto& a, auto& x) { a.forward.query_offsets = on_cpu(x.falling); },
           "query_offsets must not fall (the entry of sequence 2 does)"},
          {[](auto& a, auto& x) { a.forward.key_offsets = on_cpu(x.falling); },
           "key_offsets must not fall"},
          {[](auto& a, auto& x) { a.forward.query_offsets = on_cpu(x.negative); },
           "query_offsets begin at -1"},
          {[](auto& a, auto& x) { a.forward.key_offsets = on_cpu(x.negative); },
           "key_offsets begin at -1"},
          {[](auto& a, auto&) { a.forward.scale = std::nanf(""); }, "scale is nan"},
          {[](auto& a, auto&) { a.forward.scale = kInfinity; }, "scale is inf"},
          {[](auto& a, auto&) {
             a.forward.activation = AttentionActivation::kSilu;
             a.forward.silu_divisor = 0;
           },
           "silu_divisor is 0"},
          {[](auto& a, auto&) { a.forward.precision = Precision::kTf32; },
           "the CPU multiplies in fp32 (the precision is tf32); leave precision at kFp32"},
          {[](auto& a, auto&) {
             a.forward.precision = Precision::kTf32;
             a.forward.k.type = DataType::kBFloat16;
           },
           "q, k, v and out are not all float32 (which tf32 needs); leave precision at"},
      },
      false);
}

TEST(AttentionErrors, OfViews) {
  expect_errors(
      {
          {[](auto& a, auto&) { a.forward.q.device_data = nullptr; }, "q has no data for 8 tokens"},
          {[](auto& a, auto&) { a.forward.k.device_data = nullptr; }, "k has no data"},
          {[](auto& a, auto&) { a.forward.v.device_data = nullptr; }, "v has no data"},
          {[](auto& a, auto&) { a.forward.out.device_data = nullptr; }, "out has no data"},
          {[](auto& a, auto&) { a.forward.out.token_stride = 7; },
           "out's rows lie on one another (token_stride 7"},
          {[](auto& a, auto&) { a.forward.out.head_stride = 0; }, "head_stride 0,"},
          {[](auto& a, auto&) { a.forward.out.token_stride = a.forward.out.head_stride = 8; },
           "(token_stride 8, head_stride 8, 8 tokens of 2 heads)"},
          {[](auto& a, auto&) { a.forward.lse = a.forward.lse.first(9); },
           "lse has 9 values (must be [num_heads, num_query_tokens]; there are 2 heads)"},
          {[](auto& a, auto&) { a.forward.lse = a.forward.lse.first(18); },
           "lse has 18 values (must be [num_heads, num_query_tokens], 2 x 10)"},
      },
      false);
  expect_errors(
      {
          {[](auto& a, auto&) { a.forward.lse = {}; }, "needs the lse of its forward"},
          {[](auto& a, auto&) { a.d_out.device_data = nullptr; }, "d_out has no data"},
          {[](auto& a, auto&) { a.d_q.device_data = nullptr; }, "d_q has no data"},
          {[](auto& a, auto&) { a.d_k.device_data = nullptr; }, "d_k has no data"},
          {[](auto& a, auto&) { a.d_v.device_data = nullptr; }, "d_v has no data"},
          {[](auto& a, auto&) { a.d_q.token_stride = 0; }, "d_q's rows lie on one another"},
          {[](auto& a, auto&) { a.d_k.token_stride = -7; }, "d_k's rows lie on one another"},
          {[](auto& a, auto&) { a.d_v.head_stride = 7; }, "d_v's rows lie on one another"},
      },
      true);
}

TEST(AttentionErrors, OfBiasesAndTables) {
  const auto nan_rate = [](auto& a, auto&) { a.forward.dropout.rate = std::nanf(""); };
  expect_errors(
      {
          {[](auto& a, auto& x) { a.forward.bias = {on_cpu(x.bias), 0, 0, 8, 2}; },
           "key_stride 2, query_stride 8"},
          {[](auto& a, auto& x) {
             a.forward.position_table = {on_cpu(x.table), on_cpu(x.boundaries)};
           },
           "position_table has 12 values"},
          {[](auto& a, auto& x) {
             a.forward.position_table = {on_cpu(x.table).first(3), on_cpu(x.boundaries_that_fall)};
           },
           "position_table's boundaries must rise"},
          {[](auto& a, auto& x) {
             a.forward.time_table = {on_cpu(x.table).first(3), on_cpu(x.boundaries)};
           },
           "query_times of 10 tokens and key_times of 10 (they have 0 and 0)"},
          {[](auto& a, auto&) { a.forward.dropout.rate = 1; }, "dropout's rate is 1"},
          {[](auto& a, auto&) { a.forward.dropout.rate = -0.5f; }, "dropout's rate is -0.5"},
          {nan_rate, "dropout's rate is nan"},
          {[](auto& a, auto&) { a.forward.dropout.rate = 0.5f; },
           "dropout has 0 token_ids for 10 queries"},
          {[](auto& a, auto& x) {
             a.forward.dropout = {.rate = 0.5f, .site = 1u << 16, .token_ids = on_cpu(x.times)};
           },
           "dropout's site is 65536 with 2 heads"},
      },
      false);
}

TEST(AttentionErrors, OfPlansOfOtherBatches) {
  TestStreams host(Device::cpu());
  Case c = good_case(host), other = good_case(host);
  const AttentionPlan plan = plan_attention(c.forward_args(), host.stream);
  const auto message = [&](AttentionBackward args) {
    args.forward.plan = &plan;
    return message_of(args, false);
  };
  const std::string error = "the plan is of another batch, mask, heads or options";
  EXPECT_EQ(message(c.backward_args()), "no error");
  EXPECT_NE(message(other.backward_args()).find(error), std::string::npos);
  AttentionBackward args = c.backward_args();
  args.forward.num_key_heads = 1;
  EXPECT_NE(message(args).find(error), std::string::npos);
  args = c.backward_args();
  args.forward.mask = kCausalMask;
  EXPECT_NE(message(args).find(error), std::string::npos);
  Arrays x;
  args = c.backward_args();
  args.forward.bias = {on_cpu(x.bias), 32, 4, 8, 1};
  EXPECT_NE(message(args).find(error), std::string::npos);
}

TEST(AttentionErrors, OfGradientsOfBiasesAndTables) {
  const auto with_bias = [](auto& a, auto& x, const AttentionBias& strides) {
    a.forward.bias = strides;
    a.forward.bias.data = on_cpu(x.bias);
    a.d_bias = on_cpu(x.d_bias);
  };
  expect_errors(
      {
          {[](auto& a, auto& x) { a.d_bias = on_cpu(x.d_bias); }, "d_bias needs the bias"},
          {[=](auto& a, auto& x) { with_bias(a, x, {{}, 31, 16, 4, 1}); },
           "d_bias's blocks lie on one another (a stride of 31 where 32 values are in use)"},
          {[=](auto& a, auto& x) { with_bias(a, x, {{}, 0, 15, 1, 4}); },
           "a stride of 15 where 16 values are in use"},
          {[=](auto& a, auto& x) {
             with_bias(a, x, {{}, 32, 16, 4, 1});
             a.forward.scale = 0;
           },
           "need a scale other than 0"},
          {[](auto& a, auto& x) { a.d_position_table = on_cpu(x.d_table); },
           "d_position_table has 12 values and position_table 0"},
          {[](auto& a, auto& x) { a.d_time_table = on_cpu(x.d_table); },
           "d_time_table has 12 values and time_table 0"},
      },
      true);
}

TEST(AttentionErrors, OfTf32InE4m3) {
  TestStreams host(Device::cpu());
  Case c(full_shape({4}, {4}, 2, 64), host);
  AttentionFp8Forward call;
  call.attention = c.forward_args();
  call.attention.q = call.attention.k = call.attention.v = {};
  call.attention.precision = Precision::kTf32;
  try {
    jagged_attention_fp8_forward(call, host.stream);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("no tf32 in e4m3; leave precision"), std::string::npos)
        << error.what();
  }
}

// At the limits that are errors beyond.
TEST(AttentionErrors, NoneAtTheLimits) {
  TestStreams host(Device::cpu());
  Case c = good_case(host);
  c.run();
  Arrays x;
  AttentionBackward args = c.backward_args();
  args.forward.dropout = {.rate = 0.5f, .site = 65535, .token_ids = on_cpu(x.times)};
  // [B, N, heads, T], and keys reversed.
  args.forward.bias = {on_cpu(x.bias), 32, 4, 8, 1};
  args.d_bias = on_cpu(x.d_bias);
  EXPECT_EQ(message_of(args, true), "no error");
  args.forward.bias.query_stride = 1;
  args.forward.bias.key_stride = -8;
  args.forward.bias.data = on_cpu(x.bias).subspan(24), args.d_bias = on_cpu(x.d_bias).subspan(24);
  EXPECT_EQ(message_of(args, true), "no error");

  // Nothing is needed of what has no tokens, not even strides: [heads, 0, head_dim] has none.
  AttentionBackward none;
  none.forward.num_heads = 2;
  const std::vector<std::int64_t> no_sequence = {0};
  none.forward.query_offsets = none.forward.key_offsets = on_cpu(no_sequence);
  EXPECT_EQ(message_of(none, false), "no error");
  EXPECT_EQ(message_of(none, true), "no error");
}

}  // namespace
}  // namespace serrate
