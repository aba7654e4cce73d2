#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "tests/kernels/attention/tensor_core_cases.h"

namespace serrate {
namespace {

constexpr std::int64_t kTableHeads = 2;

enum class Times { kRising, kAnyhow };

class EveryTable : public KernelTestOver<std::tuple<AttentionActivation, std::int64_t, Times>> {
 protected:
  // Calls f(pair, entry of by_place, entry of by_time), by counting.
  template <typename F>
  void for_each_entry(const Case& c, F&& f) const {
    const std::int64_t table_heads = std::get<1>(param());
    c.for_each_pair(
        [&](std::size_t pair, std::int64_t s, std::int64_t head, std::int64_t i, std::int64_t j) {
          const std::int64_t table = table_heads == 1 ? 0 : head;
          f(pair, table * (std::ssize(places_) + 1) + count_up_to(places_, i - j),
            table * (std::ssize(durations_) + 1) + count_up_to(durations_, c.time_apart(s, i, j)));
        });
  }

  // A case of the shape with tables of the parameters, that by time in steps of so much.
  Case make_case(Shape shape, std::int64_t step_of_durations) {
    const auto [activation, table_heads, times] = param();
    shape.activation = activation;
    Case c(shape, *this);
    std::mt19937 generator(2);
    const auto random_times = [&](std::int64_t tokens) {
      std::vector<std::int64_t> result(tokens);
      std::int64_t now = 1'700'000'000'000;
      for (std::int64_t& time : result) {
        const auto step = static_cast<std::int64_t>(generator() % 100'000);
        time = now += times == Times::kRising ? step : step - 50'000;
      }
      return result;
    };
    c.query_times = random_times(c.query_offsets.back());
    c.key_times = random_times(c.key_offsets.back());
    for (std::int64_t t = -3'000'000; t < 3'000'000; t += step_of_durations) {
      durations_.push_back(t);
    }
    by_place_.resize((places_.size() + 1) * table_heads);
    by_time_.resize((durations_.size() + 1) * table_heads);
    std::normal_distribution<float> normal;
    for (auto* table : {&by_place_, &by_time_}) {
      for (float& x : *table) x = normal(generator);
    }
    c.position_table = {c.input(by_place_), c.input(places_)};
    c.time_table = {c.input(by_time_), c.input(durations_)};
    c.bias_of_pairs.resize(c.in_double().num_pairs(), 0.0);
    for_each_entry(c, [&](std::size_t pair, std::int64_t place, std::int64_t time) {
      c.bias_of_pairs[pair] = static_cast<double>(by_place_[place]) + by_time_[time];
    });
    return c;
  }

  // What is added to 1 in the gradients of the tables by place and by time.
  std::array<std::vector<double>, 2> expected_gradients(const Case& c,
                                                        const std::vector<double>& of_pairs) const {
    std::array<std::vector<double>, 2> expected = {std::vector<double>(by_place_.size(), 1),
                                                   std::vector<double>(by_time_.size(), 1)};
    for_each_entry(c, [&](std::size_t pair, std::int64_t place, std::int64_t time) {
      expected[0][place] += of_pairs[pair];
      expected[1][time] += of_pairs[pair];
    });
    return expected;
  }

  const std::vector<std::int64_t> places_ = {-40, -3, -2, 0, 1, 2, 4, 8, 16, 100};
  std::vector<std::int64_t> durations_;
  std::vector<float> by_place_, by_time_;
};

TEST_P(EveryTable, MatchesTheReference) {
  Case c =
      make_case(sized(causal_shape({130, 7, 65, 0}, {150, 40, 30, 3}, kTableHeads, 16)), 200'000);
  expect_matches_reference(c, 3e-6);
  const auto expected =
      expected_gradients(c, reference::attention_backward(c.in_double(), c.d_out.dense()).d_bias);
  std::vector<float> of_one_thread;
  for (const int threads : {1, 2}) {
    c.d_position_table.host().assign(by_place_.size(), 1);
    c.d_time_table.host().assign(by_time_.size(), 1);
    c.run(threads);
    for (std::size_t i = 0; i < by_place_.size(); ++i) {
      EXPECT_NEAR(c.d_position_table[i], expected[0][i], 2e-4);
    }
    for (std::size_t i = 0; i < by_time_.size(); ++i) {
      EXPECT_NEAR(c.d_time_table[i], expected[1][i], 2e-4);
    }
    if (threads == 1) of_one_thread = c.d_time_table.host();
    expect_same_bits(of_one_thread, c.d_time_table);
  }
}

// Entries that shared memory has room for, and so many that there is memory for one run: blocks
// take one sequence after the other. Then without a gradient of one table.
class TablesOnTensorCores : public EveryTable {};
INSTANTIATE_TEST_SUITE_P(
    All, TablesOnTensorCores,
    testing::Combine(testing::ValuesIn(test_devices()),
                     testing::Values(std::tuple{AttentionActivation::kSoftmax, 1, Times::kRising},
                                     std::tuple{AttentionActivation::kSilu, kTableHeads,
                                                Times::kAnyhow})));

TEST_P(TablesOnTensorCores, MatchTheReference) {
  Shape shape = causal_shape({66, 0, 7}, {9, 9, 66}, kTableHeads, 32);
  shape.num_key_heads = 1;
  shape.gaps = kAlignedGaps;
  const bool is_one_run = std::get<2>(param()) == Times::kAnyhow;
  Case c = make_case(shape, is_one_run ? 50 : 200'000);
  std::vector<float> of_first_run;
  for (int run = 0; run < (is_one_run ? 1 : 2); ++run) {
    c.d_position_table.host().assign(run == 0 ? by_place_.size() : 0, 1);
    c.d_time_table.host().assign(by_time_.size(), 1);
    run_halves(c);
    const auto expected = expected_gradients(c, score_gradients(c));
    if (run == 0) expect_close(c.d_position_table.host(), expected[0]);
    expect_close(c.d_time_table.host(), expected[1]);
    if (run == 0) of_first_run = c.d_time_table.host();
    expect_same_bits(of_first_run, c.d_time_table);
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, EveryTable,
    testing::Combine(testing::ValuesIn(test_devices()),
                     testing::Combine(testing::Values(AttentionActivation::kSoftmax,
                                                      AttentionActivation::kSilu),
                                      testing::Values(1, kTableHeads),
                                      testing::Values(Times::kRising, Times::kAnyhow))));

class AttentionTables : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Device, AttentionTables, testing::ValuesIn(test_devices()), device_name);

TEST_P(AttentionTables, MayHaveManyEntries) {
  Case c(full_shape({1}, {2}, 1, 1), *this);
  std::vector<std::int64_t> boundaries(70'000);
  std::iota(boundaries.begin(), boundaries.end(), 0);
  std::vector<float> values(boundaries.size() + 1);
  values[70'000] = std::log(3.0f), values[69'999] = 0;
  c.time_table = {c.input(values), c.input(boundaries)};
  c.query_times.assign(c.query_offsets.back(), 100'000);
  c.key_times = {0, 0, 30'000, 30'002};  // 70,000 and 69,998 earlier
  c.q.for_each([](float& x, std::int64_t) { x = 0; });
  c.v.for_each([](float& x, std::int64_t i) { x = i % 2 == 0 ? 2.0f : 3.0f; });
  c.d_out.for_each([](float& x, std::int64_t) { x = 1; });
  c.d_time_table.host().assign(values.size(), 0);
  c.run();
  // 70,000 and 69,999 boundaries are not above; weights 3/4 and 1/4 of the values 2 and 3.
  EXPECT_FLOAT_EQ(*c.out.at(kTokensBefore, 0), 2.25f);
  EXPECT_FLOAT_EQ(c.d_time_table[70'000], -0.1875f);
  EXPECT_FLOAT_EQ(c.d_time_table[69'999], 0.1875f);
  EXPECT_EQ(std::ranges::count(c.d_time_table.host(), 0.0f), 69'999);
}

}  // namespace
}  // namespace serrate
