#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "serrate/random.h"
#include "tests/kernels/attention_case.h"

namespace serrate {
namespace {

Case dropout_case(AttentionActivation activation) {
  Shape shape = causal_shape({130, 0, 97, 30}, {150, 5, 97, 7}, 2, 24);
  shape.activation = activation;
  return Case(shape);
}

// Word by word, as the declaration says.
std::vector<double> kept_of(const Case& c, const reference::Attention& args) {
  const DropoutKey& key = c.dropout;
  const std::uint64_t bits =
      random_bits(key.seed, RandomUse::kDropout, 0, static_cast<std::uint64_t>(key.step));
  std::vector<double> kept(args.num_pairs(), 0.0);
  for (std::int64_t s = 0; s < std::ssize(c.shape.query_lengths); ++s) {
    for (std::int64_t head = 0; head < c.shape.num_heads; ++head) {
      for (std::int64_t i = 0; i < c.shape.query_lengths[s]; ++i) {
        const auto id = static_cast<std::uint64_t>(key.token_ids[c.query_offsets[s] + i]);
        for (std::int64_t j = 0; j < c.shape.key_lengths[s]; ++j) {
          const auto words = philox4x32(
              {static_cast<std::uint32_t>(id), static_cast<std::uint32_t>(id >> 32),
               static_cast<std::uint32_t>(j / 4),
               key.site + (static_cast<std::uint32_t>(head) << 16)},
              {static_cast<std::uint32_t>(bits), static_cast<std::uint32_t>(bits >> 32)});
          const bool is_kept = words[j % 4] >= std::floor(key.rate * std::pow(2.0, 32));
          kept[args.pair_of(s, head, i, j)] = is_kept ? 1 / (1 - static_cast<double>(key.rate)) : 0;
        }
      }
    }
  }
  return kept;
}

TEST(AttentionDropout, DropsTheWeightsThatItsCounterSays) {
  for (const AttentionActivation activation :
       {AttentionActivation::kSoftmax, AttentionActivation::kSilu}) {
    Case c = dropout_case(activation);
    std::vector<std::int64_t> token_ids(c.query_offsets.back());
    for (std::size_t i = 0; i < token_ids.size(); ++i) {
      token_ids[i] = static_cast<std::int64_t>(i * 7) << (i % 2 == 0 ? 0 : 33);
    }
    c.dropout = {.rate = 0.25f, .seed = 5, .step = 3, .site = 11, .token_ids = token_ids};
    const reference::Attention args = c.in_double();
    c.kept_of_pairs = kept_of(c, args);
    expect_matches_reference(c, 2e-6);
  }
}

}  // namespace
}  // namespace serrate
