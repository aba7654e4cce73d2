#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "tests/kernels/attention/case.h"

namespace serrate {
namespace {

constexpr std::int64_t kHeads = 2;

enum class Times { kRising, kAnyhow };

class EveryTable : public KernelTestOver<std::tuple<AttentionActivation, std::int64_t, Times>> {};

TEST_P(EveryTable, MatchesTheReference) {
  const auto [activation, table_heads, times] = param();
  Shape shape = sized(causal_shape({130, 7, 65, 0}, {150, 40, 30, 3}, kHeads, 16));
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
  const std::vector<std::int64_t> places = {-40, -3, -2, 0, 1, 2, 4, 8, 16, 100};
  std::vector<std::int64_t> durations;
  for (std::int64_t t = -3'000'000; t < 3'000'000; t += 200'000) durations.push_back(t);
  std::vector<float> by_place((places.size() + 1) * table_heads),
      by_time((durations.size() + 1) * table_heads);
  std::normal_distribution<float> normal;
  for (auto* table : {&by_place, &by_time}) {
    for (float& x : *table) x = normal(generator);
  }
  c.position_table = {c.input(by_place), c.input(places)};
  c.time_table = {c.input(by_time), c.input(durations)};

  // Calls f(pair, entry of by_place, entry of by_time), by counting.
  const auto for_each_pair = [&](auto&& f) {
    c.for_each_pair(
        [&](std::size_t pair, std::int64_t s, std::int64_t head, std::int64_t i, std::int64_t j) {
          const std::int64_t table = table_heads == 1 ? 0 : head;
          f(pair, table * (std::ssize(places) + 1) + count_up_to(places, i - j),
            table * (std::ssize(durations) + 1) + count_up_to(durations, c.time_apart(s, i, j)));
        });
  };
  c.bias_of_pairs.resize(c.in_double().num_pairs(), 0.0);
  for_each_pair([&](std::size_t pair, std::int64_t place, std::int64_t time) {
    c.bias_of_pairs[pair] = static_cast<double>(by_place[place]) + by_time[time];
  });
  expect_matches_reference(c, 3e-6);

  const reference::AttentionGradients gradients =
      reference::attention_backward(c.in_double(), c.d_out.dense());
  std::vector<double> d_place(by_place.size(), 1), d_time(by_time.size(), 1);
  for_each_pair([&](std::size_t pair, std::int64_t place, std::int64_t time) {
    d_place[place] += gradients.d_bias[pair];
    d_time[time] += gradients.d_bias[pair];
  });
  std::vector<float> of_one_thread;
  for (const int threads : {1, 2}) {
    c.d_position_table.host().assign(by_place.size(), 1);
    c.d_time_table.host().assign(by_time.size(), 1);
    c.run(threads);
    for (std::size_t i = 0; i < d_place.size(); ++i) {
      EXPECT_NEAR(c.d_position_table[i], d_place[i], 2e-4);
    }
    for (std::size_t i = 0; i < d_time.size(); ++i) {
      EXPECT_NEAR(c.d_time_table[i], d_time[i], 2e-4);
    }
    if (threads == 1) of_one_thread = c.d_time_table.host();
    expect_same_bits(of_one_thread, c.d_time_table);
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, EveryTable,
    testing::Combine(testing::ValuesIn(test_devices()),
                     testing::Combine(testing::Values(AttentionActivation::kSoftmax,
                                                      AttentionActivation::kSilu),
                                      testing::Values(1, kHeads),
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
