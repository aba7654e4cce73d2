// HSTU's attention (Zhai et al., ICML'24): silu(alpha q k^T + rab) / N times a mask. The mask is
// held against those of generative-recommenders (_get_valid_attn_mask) and of FBGEMM
// (hstu_attn_varlen_func), rab against generative-recommenders' bucketed time and place.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <random>
#include <vector>

#include "kernels/attention/mask_ranges.h"
#include "tests/kernels/attention/case.h"

namespace serrate {
namespace {

using Sees = std::function<bool(std::int64_t i, std::int64_t j)>;

// One sequence and its mask in generative-recommenders' words.
struct Hstu {
  std::int64_t length, contextual_seq_len, num_targets, max_attn_len, min_full_attn_seq_len;
  std::int64_t target_group_size = 1;  // FBGEMM's

  std::int64_t first_target() const { return length - num_targets; }
  std::int64_t group_of(std::int64_t target) const {
    return (target - first_target()) / target_group_size;
  }
  // max_attn_len 0 is no window, which HstuMask says by kUnlimited.
  HstuMask mask(DeviceSpan<const std::int64_t> targets) const {
    return {contextual_seq_len, targets, target_group_size,
            max_attn_len > 0 ? max_attn_len : kUnlimited, min_full_attn_seq_len};
  }
};

// Tokens have places: contexts share 0, history goes on from there, candidates share the one after.
// A token sees itself and what lies before its place, no farther than the window unless its own
// place is among the last; place 0 sees all but the candidates.
bool seen_by_place(const Hstu& h, std::int64_t i, std::int64_t j) {
  const std::int64_t contexts_but_one = std::max<std::int64_t>(h.contextual_seq_len - 1, 0);
  const std::int64_t of_targets = h.first_target() - contexts_but_one;
  const auto place = [&](std::int64_t token) {
    return std::min(std::max<std::int64_t>(token - contexts_but_one, 0), of_targets);
  };
  const std::int64_t distance = place(i) - place(j);
  if (h.contextual_seq_len > 0 && place(i) == 0 && place(j) < of_targets) return true;
  const bool is_near =
      h.max_attn_len == 0 || distance <= h.max_attn_len ||
      (h.min_full_attn_seq_len > 0 && place(i) >= of_targets - h.min_full_attn_seq_len);
  return is_near && (i == j || distance > 0);
}

// By who may see whom; without a window.
bool seen_by_role(const Hstu& h, std::int64_t i, std::int64_t j) {
  const std::int64_t contexts = h.contextual_seq_len, targets = h.first_target();
  if (i < contexts) return j < targets;
  if (i < targets || j < targets) return j <= i;
  return j <= i && h.group_of(i) == h.group_of(j);
}

// Which keys each query of a sequence sees: queries are 0, so that all that is seen weighs the
// same, and value j is 1 in column j.
std::vector<std::vector<bool>> seen_by_kernel(std::int64_t length, const AttentionMask& mask,
                                              TestStreams& streams) {
  Case c(full_shape({length}, {length}, 1, std::max<std::int64_t>(length, 1)), streams);
  c.shape.mask = mask;
  c.q.for_each([](float& x, std::int64_t) { x = 0; });
  c.v.for_each([&](float& x, std::int64_t i) {
    x = i / c.v.head_dim - kTokensBefore == i % c.v.head_dim ? 1 : 0;
  });
  jagged_attention_forward(c.forward_args(), streams.stream);
  std::vector<std::vector<bool>> sees(length, std::vector<bool>(length));
  c.out.for_each([&](float& x, std::int64_t i) {
    sees[i / c.out.head_dim - kTokensBefore][i % c.out.head_dim] = x > 0;
  });
  return sees;
}

void expect_sees(const std::vector<std::vector<bool>>& actual, const Sees& expected) {
  for (std::int64_t i = 0; i < std::ssize(actual); ++i) {
    for (std::int64_t j = 0; j < std::ssize(actual); ++j) {
      ASSERT_EQ(actual[i][j], expected(i, j)) << "query " << i << ", key " << j;
    }
  }
}

class RandomHstu {
 public:
  std::int64_t draw(std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(generator_);
  }
  Hstu next(std::int64_t longest) {
    Hstu h{draw(0, longest), draw(0, 4), 0, 0, 0};
    h.contextual_seq_len = std::min(h.contextual_seq_len, h.length);
    h.num_targets = draw(0, h.length - h.contextual_seq_len) / draw(1, 3);
    h.target_group_size = draw(1, 4);
    if (draw(0, 1) == 0) h.max_attn_len = draw(0, longest) / draw(1, 4);
    if (draw(0, 1) == 0) h.min_full_attn_seq_len = draw(0, longest) / draw(1, 4);
    return h;
  }

 private:
  std::mt19937 generator_{17};
};

testing::Message in_words(const Hstu& h) {
  return testing::Message() << "length " << h.length << ", contexts " << h.contextual_seq_len
                            << ", targets " << h.num_targets << " by " << h.target_group_size
                            << ", window " << h.max_attn_len << ", full "
                            << h.min_full_attn_seq_len;
}

// Kernels conclude from the first and the last query of a run what those between see.
TEST(HstuRanges, RiseWhereTheySaySo) {
  RandomHstu random;
  for (int i = 0; i < 2000; ++i) {
    const Hstu h = random.next(24);
    SCOPED_TRACE(in_words(h));
    const HstuMask mask = h.mask({});
    const std::int64_t targets = h.first_target();
    const std::int64_t history = std::min(h.contextual_seq_len, targets);
    for (std::int64_t first = 0; first < h.length; ++first) {
      bool rises = true;
      TwoRanges before = hstu_keys(mask, targets, first);
      for (std::int64_t last = first; last < h.length; ++last) {
        const TwoRanges keys = hstu_keys(mask, targets, last);
        for (int r = 0; r < 2; ++r) {
          rises &= keys[r].begin >= before[r].begin && keys[r].end >= before[r].end;
        }
        before = keys;
        const bool says_so = hstu_ranges_rise(mask, targets, first, last);
        ASSERT_TRUE(rises || !says_so) << "queries " << first << " to " << last;
        const bool have_one_role =
            last < history || first >= targets || (first >= history && last < targets);
        if (have_one_role && h.min_full_attn_seq_len == 0) {
          ASSERT_TRUE(says_so) << "queries " << first << " to " << last;
        }
      }
    }
  }
}

class HstuMasks : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Device, HstuMasks, testing::ValuesIn(test_devices()), device_name);

TEST_P(HstuMasks, IsThatOfGenerativeRecommenders) {
  RandomHstu random;
  for (int i = 0; i < on_cpu_or_not(5000, 25) && !testing::Test::HasFatalFailure(); ++i) {
    Hstu h = random.next(i % 50 == 0 ? on_cpu_or_not(256, 40) : 24);
    h.target_group_size = 1;
    SCOPED_TRACE(in_words(h));
    const TestArray<std::int64_t> targets = {h.num_targets};
    expect_sees(seen_by_kernel(h.length, h.mask(targets.on(stream)), *this),
                [&](std::int64_t q, std::int64_t k) { return seen_by_place(h, q, k); });
  }
}

TEST_P(HstuMasks, IsThatOfFbgemmWithGroupsOfTargets) {
  RandomHstu random;
  for (int i = 0; i < on_cpu_or_not(5000, 25) && !testing::Test::HasFatalFailure(); ++i) {
    Hstu h = random.next(i % 50 == 0 ? on_cpu_or_not(256, 40) : 24);
    h.max_attn_len = h.min_full_attn_seq_len = 0;
    SCOPED_TRACE(in_words(h));
    const TestArray<std::int64_t> targets = {h.num_targets};
    expect_sees(seen_by_kernel(h.length, h.mask(targets.on(stream)), *this),
                [&](std::int64_t q, std::int64_t k) { return seen_by_role(h, q, k); });
  }
}

// Groups see what their candidates would alone, and one another.
TEST_P(HstuMasks, WindowsHoldForGroupsOfTargetsToo) {
  RandomHstu random;
  for (int i = 0; i < on_cpu_or_not(5000, 25) && !testing::Test::HasFatalFailure(); ++i) {
    const Hstu h = random.next(24);
    SCOPED_TRACE(in_words(h));
    const TestArray<std::int64_t> targets = {h.num_targets};
    expect_sees(seen_by_kernel(h.length, h.mask(targets.on(stream)), *this), [&](std::int64_t q,
                                                                                 std::int64_t k) {
      const bool one_group = std::min(q, k) >= h.first_target() && h.group_of(q) == h.group_of(k);
      return seen_by_place(h, q, k) || (one_group && k < q);
    });
  }
}

// Where generative-recommenders' mask leaves a token only itself: contexts that a sequence is too
// short for. Those that it has are contexts here, and candidates see them.
TEST_P(HstuMasks, ContextsOfASequenceThatIsTooShortForAllAreContexts) {
  const TestArray<std::int64_t> targets = {2};
  const HstuMask mask{.num_contexts = 5, .num_targets = targets.on(stream)};
  expect_sees(seen_by_kernel(5, mask, *this),
              [](std::int64_t i, std::int64_t j) { return i < 3 ? j < 3 : j < 3 || j == i; });
}

// FBGEMM's num_contexts, which may differ by sequence, as two ranges of keys a query.
TEST_P(HstuMasks, ContextsOfEachSequenceAreARowMask) {
  const std::vector<std::int64_t> contexts = {2, 0, 5}, targets = {3, 0, 4};
  Shape shape = full_shape({9, 4, 30}, {9, 4, 30}, 2, 8);
  const std::vector<std::int64_t> offsets = offsets_of(shape.query_lengths);
  std::vector<std::int64_t> ranges(offsets.back() * 4);
  const auto hstu = [&](std::int64_t s) {
    return Hstu{shape.query_lengths[s], contexts[s], targets[s], 0, 0, 2};
  };
  for (std::int64_t s = 0; s < std::ssize(contexts); ++s) {
    const Hstu h = hstu(s);
    for (std::int64_t i = 0; i < h.length; ++i) {
      std::int64_t* range = &ranges[(offsets[s] + i) * 4];
      const bool is_target = i >= h.first_target();
      range[1] = i < h.contextual_seq_len || is_target ? h.first_target() : i + 1;
      if (!is_target) continue;
      range[2] = h.first_target() + h.group_of(i) * h.target_group_size;
      range[3] = i + 1;
    }
  }
  shape.visible = [&](std::int64_t s, std::int64_t i, std::int64_t j) {
    return seen_by_role(hstu(s), i, j);
  };
  shape.activation = AttentionActivation::kSilu;
  Case c(shape, *this);
  c.shape.mask = RowMask{c.input(ranges)};
  expect_matches_reference(c, 2e-6);
}

// generative-recommenders' RelativeBucketedTimeAndPositionBasedBias: entry N - 1 + j - i of one
// table and floor(log(max(1, time of i's next - time of j)) / 0.301), at most num_buckets, of the
// other.
struct RelativeBias {
  std::int64_t max_seq_len = 160, num_buckets = 48;
  std::vector<float> pos_w, ts_w;

  explicit RelativeBias(std::mt19937& generator)
      : pos_w(2 * max_seq_len - 1), ts_w(num_buckets + 1) {
    std::normal_distribution<float> normal(0, 0.5f);
    for (auto* w : {&pos_w, &ts_w}) {
      for (float& x : *w) x = normal(generator);
    }
  }
  std::int64_t place(std::int64_t i, std::int64_t j) const { return max_seq_len - 1 + j - i; }
  std::int64_t bucket(std::int64_t apart) const {
    const double log_apart = std::log(std::max(1.0, static_cast<double>(apart)));
    return std::min(static_cast<std::int64_t>(log_apart / 0.301), num_buckets);
  }
};

// The same tables as Serrate has them: by i - j, so that pos_w is reversed.
struct SerrateTables {
  std::vector<std::int64_t> places, durations;
  std::vector<float> by_place;

  explicit SerrateTables(const RelativeBias& bias)
      : by_place(bias.pos_w.rbegin(), bias.pos_w.rend()) {
    for (std::int64_t n = 2 - bias.max_seq_len; n < bias.max_seq_len; ++n) places.push_back(n);
    for (std::int64_t n = 1; n <= bias.num_buckets; ++n) {
      durations.push_back(
          static_cast<std::int64_t>(std::ceil(std::exp(0.301 * static_cast<double>(n)))));
    }
  }
};

// Times of tokens that rise within a sequence, and those of each token's next.
void set_times(Case& c, std::mt19937& generator) {
  c.query_times.assign(c.query_offsets.back(), 0);
  c.key_times.assign(c.key_offsets.back(), 0);
  std::int64_t now = 1'700'000'000;
  for (std::size_t s = 0; s + 1 < c.query_offsets.size(); ++s) {
    const std::int64_t begin = c.query_offsets[s], end = c.query_offsets[s + 1];
    for (std::int64_t t = begin; t < end; ++t) {
      c.key_times[t] = now += std::int64_t{1} << generator() % 22;
    }
    for (std::int64_t t = begin; t < end; ++t) {
      c.query_times[t] = c.key_times[std::min(t + 1, end - 1)];
    }
  }
}

class HstuAttention : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Device, HstuAttention, testing::ValuesIn(test_devices()), device_name);

TEST_P(HstuAttention, WithBucketedTimeAndPlaceMatchesItsDefinition) {
  std::mt19937 generator(9);
  const RelativeBias bias(generator);
  const SerrateTables tables(bias);
  const std::vector<std::int64_t> targets = {20, 0, 3, 0, on_cpu_or_not(31, 8)};
  for (const bool has_window : {false, true}) {
    Shape shape = sized(full_shape({150, 0, 70, 1, 97}, {150, 0, 70, 1, 97}, 2, 24));
    const auto hstu = [=](std::int64_t s) {
      const std::int64_t contexts = has_window ? 0 : 1;
      return Hstu{shape.query_lengths[s], contexts, targets[s], has_window ? 40 : 0,
                  has_window ? 10 : 0};
    };
    shape.activation = AttentionActivation::kSilu;
    shape.silu_divisor = static_cast<float>(bias.max_seq_len);
    shape.visible = [=](std::int64_t s, std::int64_t i, std::int64_t j) {
      return seen_by_place(hstu(s), i, j);
    };
    Case c(shape, *this);
    c.shape.mask = hstu(0).mask(c.input(targets));
    set_times(c, generator);
    c.position_table = {c.input(tables.by_place), c.input(tables.places)};
    c.time_table = {c.input(bias.ts_w), c.input(tables.durations)};
    c.bias_of_pairs.resize(c.in_double().num_pairs());
    const auto for_each_pair = [&](auto&& f) {
      c.for_each_pair(
          [&](std::size_t pair, std::int64_t s, std::int64_t, std::int64_t i, std::int64_t j) {
            f(pair, bias.place(i, j), bias.bucket(c.time_apart(s, i, j)));
          });
    };
    for_each_pair([&](std::size_t pair, std::int64_t place, std::int64_t bucket) {
      c.bias_of_pairs[pair] = static_cast<double>(bias.pos_w[place]) + bias.ts_w[bucket];
    });
    expect_matches_reference(c, 3e-6);

    c.d_position_table.host().resize(bias.pos_w.size());
    c.d_time_table.host().resize(bias.ts_w.size());
    c.run(2);
    std::vector<double> d_pos_w(bias.pos_w.size()), d_ts_w(bias.ts_w.size());
    const auto gradients = reference::attention_backward(c.in_double(), c.d_out.dense());
    for_each_pair([&](std::size_t pair, std::int64_t place, std::int64_t bucket) {
      d_pos_w[place] += gradients.d_bias[pair];
      d_ts_w[bucket] += gradients.d_bias[pair];
    });
    for (std::size_t n = 0; n < d_pos_w.size(); ++n) {
      EXPECT_NEAR(c.d_position_table[d_pos_w.size() - 1 - n], d_pos_w[n], 1e-5);
    }
    for (std::size_t n = 0; n < d_ts_w.size(); ++n) EXPECT_NEAR(c.d_time_table[n], d_ts_w[n], 1e-5);
  }
}

// FBGEMM multiplies rab by alpha, too: its bias is alpha rab here, its drab alpha d_bias.
TEST_P(HstuAttention, FbgemmsRabIsABiasTimesAlpha) {
  const std::int64_t length = 40;
  Shape shape = causal_shape({length}, {length}, 1, 8);
  shape.activation = AttentionActivation::kSilu;
  Case c(shape, *this);
  std::mt19937 generator(1);
  std::normal_distribution<float> normal;
  const float alpha = c.scale;
  std::vector<float> rab(length * length), bias(rab.size());
  TestArray<float> d_bias(length * length);
  for (std::size_t i = 0; i < rab.size(); ++i) {
    rab[i] = normal(generator);
    bias[i] = alpha * rab[i];
    c.bias_of_pairs.push_back(static_cast<double>(alpha) * rab[i]);
  }
  c.bias = {c.input(bias), 0, 0, length, 1};
  c.d_bias = &d_bias;
  c.run();
  expect_values_of_reference(c, 2e-6);
  // d rab by differences: sum of d_out times silu(alpha (q.k + rab)) / N times v.
  const auto loss_of = [&](std::int64_t i, std::int64_t j, double at) {
    double score = at, d_weight = 0;
    for (std::int64_t x = 0; x < 8; ++x) {
      score +=
          static_cast<double>(c.q.at(kTokensBefore + i, 0)[x]) * c.k.at(kTokensBefore + j, 0)[x];
      d_weight += static_cast<double>(c.d_out.at(kTokensBefore + i, 0)[x]) *
                  c.v.at(kTokensBefore + j, 0)[x];
    }
    score *= alpha;
    return d_weight * score / (1 + std::exp(-score)) / shape.silu_divisor;
  };
  for (std::int64_t i = 0; i < length; ++i) {
    for (std::int64_t j = 0; j < length; ++j) {
      const double at = rab[i * length + j], step = 1e-5;
      const double d_rab =
          j > i ? 0 : (loss_of(i, j, at + step) - loss_of(i, j, at - step)) / (2 * step);
      EXPECT_NEAR(alpha * d_bias[i * length + j], d_rab, 1e-7);
    }
  }
}

}  // namespace
}  // namespace serrate
