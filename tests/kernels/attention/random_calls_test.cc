// Random calls: every option at once, lengths at the borders of tiles. Each is held against the
// reference, and its bits against those of another run, of a plan made beforehand, and of some of
// its sequences in another batch. By default one or two small ones of each kind, and some of up to
// 648 queries or keys, for some of which Hopper has kernels of its own.
// SERRATE_RANDOM_CALLS=n makes n of each kind, or =m+n those from m on, and prints each before it
// is made.
#include <gtest/gtest.h>

#include <bit>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <numeric>
#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "tests/kernels/attention/error_bounds.h"
#include "tests/kernels/attention/fp8_case.h"
#include "tests/kernels/attention/masks.h"
#include "tests/kernels/attention/random_call.h"

namespace serrate {
namespace {

// The same values, laid out anew.
Tokens laid_out(Tokens& from, Layout layout) {
  const Gaps gaps = layout == Layout::kAlignedGaps ? kAlignedGaps
                    : layout == Layout::kOddGaps   ? Gaps{}
                                                   : Gaps{0, 0};
  Tokens to({from.begin, from.end}, from.num_heads, from.head_dim, gaps);
  if (layout == Layout::kHeadsFirst) {
    to.token_stride = to.head_dim, to.head_stride = to.token_stride * (to.end + kTokensAfter);
  }
  const std::vector<double> values = from.dense();
  to.for_each([&](float& x, std::int64_t i) { x = static_cast<float>(values[i]); });
  return to;
}

TestMask mask_of(const RandomCall& call, const Stream& stream) {
  std::mt19937 generator(static_cast<unsigned>(call.number));
  return random_mask(call.mask, batch_of(call.shape), generator, stream);
}

Shape shape_of_some(const RandomCall& call) {
  Shape shape = call.shape;
  shape.query_lengths.clear(), shape.key_lengths.clear();
  for (const std::size_t s : call.again) {
    shape.query_lengths.push_back(call.shape.query_lengths[s]);
    shape.key_lengths.push_back(call.shape.key_lengths[s]);
  }
  return shape;
}

// A random call with its memory, in which results are left.
struct CallCase {
  const RandomCall& call;
  const TestMask mask;
  Case c;
  std::optional<Biases> biases = {};
  std::vector<float> bias_of_some = {};  // where sequences have blocks of their own
  TestArray<float> d_bias_of_some = {};
  std::optional<Tokens> shared_q = {}, shared_d_q = {};  // c has a copy for every sequence
  bool forward_is_on_tensor_cores = false, backward_is_on_tensor_cores = false;  // of the last run

  CallCase(const RandomCall& of, TestStreams& streams)
      : call(of), mask(mask_of(of, streams.stream)), c(masked_case(of.shape, mask, streams)) {
    c.scale = call.scale;
    c.q.for_each([&](float& x, std::int64_t) { x *= call.logit_size; });
    if (call.queries_are_shared) {
      for (std::size_t s = 1; s < call.shape.query_lengths.size(); ++s) {
        for_each_value(c, 0, c, s, &Case::q, [](float x, float& copy) { copy = x; });
      }
    }
    if (call.kind == CallKind::kTf32) round_to_tf32(c);
    lay_out();
    if (call.biases) {
      const bool hide = call.some_biases_hide;
      biases.emplace(c, [=](float x) { return hide && x > 1 ? -kInfinity : x; }, *call.biases);
    }
    if (call.dropout) {
      c.dropout = *call.dropout;
      c.token_ids = ids_of_tokens(c);
      c.kept_of_pairs = kept_of(c, c.in_double());
    }
  }

  // Some sequences of a batch, with what its biases are.
  CallCase(CallCase& all, TestStreams& streams)
      : call(all.call),
        mask(of_sequences(all.mask, batch_of(call.shape), call.again, streams.stream)),
        c(masked_case(shape_of_some(call), mask, streams)) {
    c.scale = all.c.scale;
    c.bias = all.c.bias, c.d_bias = all.c.d_bias;
    if (c.bias.sequence_stride != 0) give_blocks(all.biases->bias);
    c.position_table = all.c.position_table, c.d_position_table = all.c.d_position_table;
    c.time_table = all.c.time_table, c.d_time_table = all.c.d_time_table;
    c.dropout = all.c.dropout;
    for (std::size_t t = 0; t < call.again.size(); ++t) {
      const bool is_nan = t == 0 && call.first_is_nan;
      for (const auto which : kInputs) {
        for_each_value(all.c, call.again[t], c, t, which,
                       [&](float x, float& to) { to = is_nan ? kNan : x; });
      }
      add_tokens(all.c, call.again[t], &Case::query_offsets, &Case::query_times);
      add_tokens(all.c, call.again[t], &Case::key_offsets, &Case::key_times);
      add_tokens(all.c, call.again[t], &Case::query_offsets, &Case::token_ids);
    }
    lay_out();
  }

  // Forward and backward; `change` has the call before it is made.
  void run(const std::function<void(AttentionBackward&)>& change = {},
           Backward backward = Backward::kOnTensorCores) {
    for (Tokens* x : {&c.out, &d_q(), &c.d_k, &c.d_v}) x->clear();
    for (auto* sum : {c.d_bias, &c.d_position_table, &c.d_time_table}) {
      if (sum) std::ranges::fill(sum->host(), 0.0f);
    }
    std::ranges::fill(c.lse.host(), kNan);
    StoredCase stored = in_types();
    AttentionBackward args = stored.call(c);
    if (call.queries_are_shared) share_queries(args, stored);
    const Stream& stream = c.streams.threads(static_cast<int>(call.number % 3) + 1);
    if (call.kind == CallKind::kTf32 && stream.device().type != DeviceType::kCpu) {
      args.forward.precision = Precision::kTf32;
    }
    if (change) change(args);
#if SERRATE_WITH_CUDA
    if (stream.device().type != DeviceType::kCpu) {
      const AttentionBackwardView view = view_of(args);
      forward_is_on_tensor_cores = forward_takes_tensor_cores(view.forward, stream);
      backward_is_on_tensor_cores = backward_takes_tensor_cores(view, stream);
    }
#endif
    jagged_attention_forward(args.forward, stream);
    if (backward != Backward::kNotRun) jagged_attention_backward(args, stream);
    stored.load();
    if (call.queries_are_shared) move_lse();
  }

  Tokens& q() { return shared_q ? *shared_q : c.q; }
  Tokens& d_q() { return shared_d_q ? *shared_d_q : c.d_q; }

 private:
  StoredCase in_types() {
    const auto& t = call.types;
    return {{q(), t[0]},   {c.k, t[1]},   {c.v, t[2]},   {c.d_out, t[3]},
            {c.out, t[4]}, {d_q(), t[5]}, {c.d_k, t[6]}, {c.d_v, t[7]}};
  }
  // Layouts, inputs rounded to their types, and shared queries.
  void lay_out() {
    for (std::size_t i = 0; i < kNumTensors; ++i) {
      c.*kTensors[i] = laid_out(c.*kTensors[i], call.layouts[i]);
    }
    for (std::size_t i = 0; i < std::size(kInputs); ++i) {
      StoredTokens(c.*kInputs[i], call.types[i]);
    }
    if (!call.queries_are_shared) return;
    Tokens one({kTokensBefore, c.query_offsets[1]}, c.shape.num_heads, c.shape.head_dim);
    shared_d_q = laid_out(one, call.layouts[5]);
    one.for_each(
        [values = c.q.dense()](float& x, std::int64_t i) { x = static_cast<float>(values[i]); });
    shared_q = laid_out(one, call.layouts[0]);
  }
  void add_tokens(const Case& all, std::size_t s, std::vector<std::int64_t> Case::* offsets,
                  std::vector<std::int64_t> Case::* values) {
    if ((all.*values).empty()) return;
    (c.*values).resize(std::max<std::size_t>((c.*values).size(), kTokensBefore));
    (c.*values).insert((c.*values).end(), (all.*values).begin() + (all.*offsets)[s],
                       (all.*values).begin() + (all.*offsets)[s + 1]);
  }
  void give_blocks(const std::vector<float>& bias) {
    const std::int64_t block = c.bias.sequence_stride;
    for (const std::size_t s : call.again) {
      const auto first = bias.begin() + static_cast<std::int64_t>(s) * block;
      bias_of_some.insert(bias_of_some.end(), first, first + block);
    }
    d_bias_of_some.host().resize(bias_of_some.size());
    c.bias.data = c.input(bias_of_some), c.d_bias = &d_bias_of_some;
  }
  // There, token 0 is the first: views that begin there.
  void share_queries(AttentionBackward& args, StoredCase& stored) {
    const Stream& stream = c.streams.stream;
    const auto from_first = [](auto& values, std::int64_t width = 1) {
      if (!values.empty()) values = values.subspan(kTokensBefore * width);
    };
    AttentionForward& forward = args.forward;
    forward.num_shared_queries = c.shape.query_lengths[0], forward.query_offsets = {};
    forward.q = stored.q.on(stream, kTokensBefore);
    forward.out = stored.out.on(stream, kTokensBefore);
    args.d_out = stored.d_out.on(stream, kTokensBefore);
    args.d_q = stored.d_q.on(stream, kTokensBefore);
    from_first(forward.query_times), from_first(forward.dropout.token_ids);
    if (auto* const rows = std::get_if<RowMask>(&forward.mask)) from_first(rows->ranges, 4);
  }
  void move_lse() {
    const std::int64_t tokens = c.lse.size() / c.shape.num_heads;
    for (std::int64_t head = 0; head < c.shape.num_heads; ++head) {
      const auto row = c.lse.host().begin() + head * tokens;
      std::rotate(row, row + tokens - kTokensBefore, row + tokens);
    }
  }
};

// What products of rows of one type are rounded to on tensor cores; elsewhere they are not.
Rounding rounding_of_products(const RandomCall& call, bool on_tensor_cores) {
  if (!on_tensor_cores) return {};
  const DataType type = call.types[0];
  return type == DataType::kFloat32 ? Rounding{0x1p-11} : rounding_to(type);
}

void expect_within(const std::string& name, const std::vector<float>& actual,
                   const std::vector<double>& values, const std::vector<double>& bounds) {
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const double bound = bounds[i] + kFloat32Sums * std::abs(values[i]);
    ASSERT_LE(std::abs(actual[i] - values[i]), bound + 1e-30) << name << ", entry " << i;
  }
}

// d_q of the sequences, summed over the batch.
Bounded summed(const Bounded& of_copies, const Case& c) {
  const std::int64_t row = c.shape.num_heads * c.shape.head_dim, first = kTokensBefore * row;
  const std::int64_t size = c.shape.query_lengths[0] * row;
  Bounded result(static_cast<std::size_t>(first + size));
  for (std::int64_t i = first; i < c.query_offsets.back() * row; ++i) {
    const std::int64_t to = first + (i - first) % size;
    result.values[to] += of_copies.values[i];
    result.bounds[to] += of_copies.bounds[i] + 0x1p-23 * std::abs(of_copies.values[i]);
  }
  return result;
}

void expect_reference(CallCase& x) {
  Case& c = x.c;
  const ExpectedCall expected =
      expected_of(c, rounding_of_products(x.call, x.forward_is_on_tensor_cores),
                  rounding_of_products(x.call, x.backward_is_on_tensor_cores));
  const auto& types = x.call.types;
  expect_within("out", c.out, expected.out, types[4]);
  expect_within("d_q", x.d_q(), x.shared_d_q ? summed(expected.d_q, c) : expected.d_q, types[5]);
  expect_within("d_k", c.d_k, expected.d_k, types[6]);
  expect_within("d_v", c.d_v, expected.d_v, types[7]);
  expect_lse(c, expected.lse, 5e-5);
  if (!x.biases) return;
  const auto values = x.biases->gradients(c, expected.d_scores.values);
  const auto bounds = x.biases->gradients(c, expected.d_scores.bounds);
  if (c.d_bias) expect_within("d_bias", c.d_bias->host(), values[0], bounds[0]);
  expect_within("d_position_table", c.d_position_table.host(), values[1], bounds[1]);
  expect_within("d_time_table", c.d_time_table.host(), values[2], bounds[2]);
}

std::vector<std::vector<float>> all_results(CallCase& x) {
  std::vector<std::vector<float>> all = results(x.c);
  all[1] = x.d_q().values.host();
  return all;
}

void expect_same(const std::vector<std::vector<float>>& a,
                 const std::vector<std::vector<float>>& b) {
  static constexpr const char* kNames[] = {"out", "d_q", "d_k", "d_v", "lse"};
  for (std::size_t i = 0; i < a.size(); ++i) {
    SCOPED_TRACE(kNames[i]);
    expect_same_bits(a[i], b[i]);
  }
}

// The sequences that are called again, against the batch.
void expect_same_sequences(CallCase& all, CallCase& some) {
  const RandomCall& call = all.call;
  const std::int64_t tokens = all.c.lse.size() / call.shape.num_heads;
  const std::int64_t some_tokens = some.c.lse.size() / call.shape.num_heads;
  for (std::size_t t = call.first_is_nan ? 1 : 0; t < call.again.size(); ++t) {
    const std::size_t s = call.again[t];
    std::int64_t different = 0;
    const auto compare = [&](float x, float y) {
      different += std::bit_cast<std::uint32_t>(x) != std::bit_cast<std::uint32_t>(y) ? 1 : 0;
    };
    for (const auto which : kResults) {
      if (call.queries_are_shared && which == &Case::d_q) continue;
      for_each_value(all.c, s, some.c, t, which, compare);
    }
    for (std::int64_t head = 0; head < call.shape.num_heads; ++head) {
      for (std::int64_t i = 0; i < call.shape.query_lengths[s]; ++i) {
        compare(all.c.lse[head * tokens + all.c.query_offsets[s] + i],
                some.c.lse[head * some_tokens + some.c.query_offsets[t] + i]);
      }
    }
    EXPECT_EQ(different, 0) << "bits of sequence " << s << ", the batch's " << t;
  }
}

void expect_call(const RandomCall& call, TestStreams& streams) {
  CallCase x(call, streams);
  x.run();
  expect_reference(x);
  const auto expected = all_results(x);
  std::optional<AttentionPlan> plan;
  Buffer<float> partials;
  x.run([&](AttentionBackward& args) {
    plan = plan_attention(args.forward, streams.stream);
    partials = Buffer<float>(plan->num_partials(), streams.stream);
    args.forward.plan = &*plan, args.forward.partials = partials.span();
    args.d_bias = {}, args.d_position_table = {}, args.d_time_table = {};
  });
  expect_same(expected, all_results(x));
  CallCase some(x, streams);
  some.run();
  expect_same_sequences(x, some);
  x.run([](AttentionBackward& args) { args.forward.lse = {}; }, Backward::kNotRun);
  expect_same_bits(expected[0], x.c.out.values.host());
}

void expect_fp8_call(const RandomCall& call, TestStreams& streams) {
  CallCase x(call, streams);
  const DataType type = call.types[4];
  Fp8Case fp8(x.c);
  fp8.run(type);
  expect_output(fp8, type);
  const auto expected = all_results(x);
  std::optional<AttentionPlan> plan;
  fp8.run(type, [&](AttentionFp8Forward& args) {
    plan = plan_attention(args.attention, streams.stream);
    args.attention.plan = &*plan;
  });
  expect_same(expected, all_results(x));
  CallCase some(x, streams);
  Fp8Case(some.c).run(type);
  expect_same_sequences(x, some);
}

// The calls that are made of each kind.
std::vector<std::int64_t> numbers_of_calls(CallKind kind) {
  const char* const text = std::getenv("SERRATE_RANDOM_CALLS");
  if (!text) return default_numbers(kind);
  char* rest = nullptr;
  const std::int64_t number = std::strtoll(text, &rest, 10);
  const bool has_first = *rest == '+';
  std::vector<std::int64_t> result(has_first ? std::strtoll(rest + 1, nullptr, 10) : number);
  std::iota(result.begin(), result.end(), has_first ? number : 0);
  return result;
}

class RandomCalls : public KernelTestOver<CallKind> {};
INSTANTIATE_TEST_SUITE_P(All, RandomCalls,
                         testing::Combine(testing::ValuesIn(test_devices()),
                                          testing::Values(CallKind::kAny, CallKind::kHalves,
                                                          CallKind::kTf32, CallKind::kFp8)),
                         [](const auto& tested) { return to_string(std::get<1>(tested.param)); });

TEST_P(RandomCalls, MatchTheReferenceAndKeepTheirBits) {
#if SERRATE_WITH_CUDA
  if (param() == CallKind::kFp8 && stream.device().type != DeviceType::kCpu &&
      10 * device_attribute(stream, cudaDevAttrComputeCapabilityMajor) +
              device_attribute(stream, cudaDevAttrComputeCapabilityMinor) <
          89) {
    GTEST_SKIP() << "e4m3 is for sm_89 and later";
  }
#endif
  for (const std::int64_t number : numbers_of_calls(param())) {
    const RandomCall call = random_call(param(), number);
    if (std::getenv("SERRATE_RANDOM_CALLS")) std::cout << call << std::endl;
    SCOPED_TRACE(testing::Message()
                 << call << "\nalone by SERRATE_RANDOM_CALLS=" << number << "+1");
    TestStreams streams(stream.device());
    try {
      param() == CallKind::kFp8 ? expect_fp8_call(call, streams) : expect_call(call, streams);
    } catch (const Error& error) {
      ADD_FAILURE() << error.what();
    }
  }
}

// The numbers mean what they are chosen for: sequences for one block and two of Hopper's backward,
// and longer ones.
TEST_P(RandomCalls, ReachHoppersKernels) {
  if (param() != CallKind::kHalves || !has_wgmma(stream)) GTEST_SKIP() << "none of this kind";
  std::int64_t in_one_block = 0, in_two_blocks = 0, longer = 0;
  for (const std::int64_t number : default_numbers(param())) {
    const RandomCall call = random_call(param(), number);
    CallCase x(call, *this);
    const NumTasks tasks = tasks_of(x.c);
    in_one_block += tasks.resident_wgmma, in_two_blocks += tasks.paired_wgmma;
    const std::int64_t longest = std::max(std::ranges::max(call.shape.query_lengths),
                                          std::ranges::max(call.shape.key_lengths));
    longer += longest > most_of_whole(call.shape.head_dim) ? 1 : 0;
  }
  EXPECT_GT(in_one_block, 0);
  EXPECT_GT(in_two_blocks, 0);
  EXPECT_GE(longer, 2);
}

}  // namespace
}  // namespace serrate
