#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <random>
#include <vector>

#include "tests/kernels/attention/case.h"

namespace serrate {

/// Which biases a case has, and who shares them.
struct BiasParts {
  bool block = true, by_place = true, by_time = true;
  std::array<bool, 4> has_own = {false, true, true, true};  ///< sequence, head, query, key
  bool keys_are_rows = false;                               ///< a block is [keys, queries]
  bool place_by_head = false, time_by_head = true;
};

/// A bias [heads, queries, keys] that sequences share, or what `parts` say, a table by place that
/// heads share, and one by time. What is left out is a 0 that all pairs share. Has to outlive the
/// case's runs.
struct Biases {
  BiasParts parts;
  AttentionBias strides = {{}, 0, 0, 0, 0};
  std::vector<float> bias, by_place, by_time;
  TestArray<float> d_bias;
  std::vector<std::int64_t> places = {}, durations = {};

  /// Their values as `store` changes them.
  explicit Biases(
      Case& c, const std::function<float(float)>& store = [](float x) { return x; },
      const BiasParts& which = {})
      : parts(which) {
    const reference::Attention args = c.in_double();
    if (parts.by_place) {
      places = {-1000, -500, -90, -40, -8, -3, -2, 0, 1, 2, 4, 8, 16, 100};
    }
    for (std::int64_t t = -3'000; parts.by_time && t < 3'000; t += 200) durations.push_back(t);
    bias.resize(parts.block ? lay_out_block(args) : 1);
    by_place.resize((places.size() + 1) * (parts.place_by_head ? c.shape.num_heads : 1));
    by_time.resize((durations.size() + 1) * (parts.time_by_head ? c.shape.num_heads : 1));
    std::mt19937 generator(3);
    std::normal_distribution<float> normal;
    const auto randomise = [&](std::vector<float>& values, bool is_there) {
      for (float& x : values) x = is_there ? store(normal(generator)) : 0;
    };
    randomise(bias, parts.block);
    randomise(by_place, parts.by_place);
    randomise(by_time, parts.by_time);
    c.query_times.resize(c.query_offsets.back());
    c.key_times.resize(c.key_offsets.back());
    for (auto* times : {&c.query_times, &c.key_times}) {
      for (std::int64_t& time : *times) time = static_cast<std::int64_t>(generator() % 4'000);
    }
    give_to(c);
    c.bias_of_pairs.resize(args.num_pairs());
    for_each_pair(c, [&](std::size_t pair, std::size_t at, std::size_t place, std::size_t time) {
      c.bias_of_pairs[pair] = static_cast<double>(bias[at]) + by_place[place] + by_time[time];
    });
  }

  /// What there is becomes that of a case, with gradients.
  void give_to(Case& c) {
    if (parts.block) {
      d_bias.host().assign(bias.size(), 0);
      c.bias = strides, c.bias.data = c.input(bias);
      c.d_bias = &d_bias;
    }
    if (parts.by_place) {
      c.position_table = {c.input(by_place), c.input(places)};
      c.d_position_table.host().assign(by_place.size(), 0);
    }
    if (parts.by_time) {
      c.time_table = {c.input(by_time), c.input(durations)};
      c.d_time_table.host().assign(by_time.size(), 0);
    }
  }

  /// Calls f(pair, entry of bias, of by_place, of by_time).
  template <typename F>
  void for_each_pair(const Case& c, F&& f) const {
    const std::int64_t times = parts.time_by_head ? std::ssize(durations) + 1 : 0;
    const std::int64_t steps = parts.place_by_head ? std::ssize(places) + 1 : 0;
    c.for_each_pair(
        [&](std::size_t pair, std::int64_t s, std::int64_t head, std::int64_t i, std::int64_t j) {
          const auto& [data, by_sequence, by_head, by_query, by_key] = strides;
          f(pair, s * by_sequence + head * by_head + i * by_query + j * by_key,
            head * steps + count_up_to(places, i - j),
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

 private:
  // Sets the strides; returns the number of values.
  std::int64_t lay_out_block(const reference::Attention& args) {
    std::int64_t size = 1;
    const auto lay_out = [&](int axis, std::int64_t& stride, std::int64_t length) {
      stride = parts.has_own[axis] ? size : 0;
      if (parts.has_own[axis]) size *= std::max<std::int64_t>(length, 1);
    };
    const auto lay_out_keys = [&] { lay_out(3, strides.key_stride, args.longest_keys()); };
    if (!parts.keys_are_rows) lay_out_keys();
    lay_out(2, strides.query_stride, args.longest_queries());
    if (parts.keys_are_rows) lay_out_keys();
    lay_out(1, strides.head_stride, args.num_heads);
    lay_out(0, strides.sequence_stride, std::ssize(args.query_offsets) - 1);
    return size;
  }
};

}  // namespace serrate
