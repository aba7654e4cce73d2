#pragma once

#include <array>
#include <functional>
#include <random>
#include <vector>

#include "tests/kernels/attention/case.h"

namespace serrate {

/// What a case may have besides: a bias [heads, queries, keys] that sequences share, a table by
/// place that heads share, and one by time. Has to outlive the case's runs.
struct Biases {
  std::vector<float> bias, by_place, by_time;
  TestArray<float> d_bias;
  std::vector<std::int64_t> places = {-1000, -500, -90, -40, -8, -3, -2, 0, 1, 2, 4, 8, 16, 100},
                            durations = {};

  /// Their values as `store` rounds them.
  explicit Biases(Case& c, const std::function<float(float)>& store = [](float x) { return x; }) {
    const reference::Attention args = c.in_double();
    const std::int64_t queries = args.longest_queries(), keys = args.longest_keys();
    for (std::int64_t t = -3'000; t < 3'000; t += 200) durations.push_back(t);
    bias.resize(c.shape.num_heads * queries * keys);
    by_place.resize(places.size() + 1);
    by_time.resize((durations.size() + 1) * c.shape.num_heads);
    std::mt19937 generator(3);
    std::normal_distribution<float> normal;
    for (auto* values : {&bias, &by_place, &by_time}) {
      for (float& x : *values) x = store(normal(generator));
    }
    c.query_times.resize(c.query_offsets.back());
    c.key_times.resize(c.key_offsets.back());
    for (auto* times : {&c.query_times, &c.key_times}) {
      for (std::int64_t& time : *times) time = static_cast<std::int64_t>(generator() % 4'000);
    }
    d_bias.host().resize(bias.size());
    c.bias = {c.input(bias), 0, queries * keys, keys, 1};
    c.d_bias = &d_bias;
    c.position_table = {c.input(by_place), c.input(places)};
    c.time_table = {c.input(by_time), c.input(durations)};
    c.d_position_table.host().resize(by_place.size());
    c.d_time_table.host().resize(by_time.size());
    c.bias_of_pairs.resize(args.num_pairs());
    for_each_pair(c, [&](std::size_t pair, std::size_t at, std::size_t place, std::size_t time) {
      c.bias_of_pairs[pair] = static_cast<double>(bias[at]) + by_place[place] + by_time[time];
    });
  }

  /// Calls f(pair, entry of bias, of by_place, of by_time).
  template <typename F>
  void for_each_pair(const Case& c, F&& f) const {
    const std::int64_t times = std::ssize(durations) + 1;
    c.for_each_pair([&](std::size_t pair, std::int64_t s, std::int64_t head, std::int64_t i,
                        std::int64_t j) {
      f(pair, head * c.bias.head_stride + i * c.bias.query_stride + j, count_up_to(places, i - j),
        head * times + count_up_to(durations, c.time_apart(s, i, j)));
    });
  }

  /// The gradients of bias, by_place and by_time from those of all pairs.
  std::array<std::vector<double>, 3> gradients(const Case& c, const std::vector<double>& of_pairs) {
    std::array<std::vector<double>, 3> result;
    result[0].resize(bias.size()), result[1].resize(by_place.size());
    result[2].resize(by_time.size());
    for_each_pair(c, [&](std::size_t pair, std::size_t at, std::size_t place, std::size_t time) {
      result[0][at] += of_pairs[pair];
      result[1][place] += of_pairs[pair];
      result[2][time] += of_pairs[pair];
    });
    return result;
  }
};

}  // namespace serrate
