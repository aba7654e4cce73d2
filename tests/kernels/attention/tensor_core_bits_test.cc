// Bits of what runs on tensor cores: a sequence has the same ones in any batch, in any run, and
// whatever way its mask is given.
#include <gtest/gtest.h>

#include <bit>
#include <cstdint>
#include <random>
#include <utility>
#include <vector>

#include "tests/kernels/attention/masks.h"
#include "tests/kernels/attention/tensor_core_cases.h"

namespace serrate {
namespace {

// Whether it shares a block with others or not.
TEST_P(TensorCores, BitsOfASequenceDoNotDependOnTheRestOfTheBatch) {
  const std::vector<std::int64_t> lengths = {16, 70, 20, 1, 30, 9};
  Shape shape = causal_shape(lengths, lengths, 3, 32);
  shape.gaps = kAlignedGaps;
  Case batch(shape, *this);
  run_halves(batch);
  for (std::size_t s = 0; s < lengths.size(); ++s) expect_same_sequences(batch, {s});
  expect_same_sequences(batch, {4, 0, 5, 3, 1, 2});
  for (const std::size_t all_nan : {0, 1, 2}) {
    expect_same_sequences(batch, {0, 1, 2, 3, 4, 5}, all_nan);
  }
}

// Two of more keys than blocks take whole, of which the last decodes. A tile at their ragged ends
// has rows of the sequence behind.
TEST_P(TensorCores, BitsOfALongSequenceDoNotDependOnTheRestOfTheBatch) {
  for (const std::int64_t head_dim : {64, 256}) {
    const Backward backward = backward_of_long(head_dim);
    const std::int64_t most = most_of_whole(head_dim);
    Shape shape = full_shape({66, 20, 3}, {most + 18, 20, most + 3}, 1, head_dim);
    shape.gaps = kAlignedGaps;
    Case batch(shape, *this);
    run_halves(batch, backward);
    expect_same_sequences(batch, {2, 0, 1}, 1, backward);
    if (head_dim == 64) expect_same_sequences(batch, {0});
  }
}

TEST_P(TensorCores, BitsOfALongSequenceAreThoseOfAnotherRunAndOfTheSameMaskInBits) {
  std::mt19937 generator(8);
  Shape shape = causal_shape({67}, {530}, 1, 64);
  shape.gaps = kAlignedGaps;
  const TestMask mask = random_mask(MaskKind::kRows, batch_of(shape), generator, stream);
  const TestMask in_bits = as_bits(mask, batch_of(shape), stream);
  Case c = masked_case(shape, mask, *this), again = c, other = masked_case(shape, in_bits, *this);
  for (Case* x : {&c, &again, &other}) run_halves(*x);
  for (Case* x : {&again, &other}) {
    std::int64_t different = 0;
    for_each_value(c, 0, *x, 0, &Case::out, [&](float a, float b) {
      different += std::bit_cast<std::uint32_t>(a) != std::bit_cast<std::uint32_t>(b);
    });
    EXPECT_EQ(different, 0);
  }
}

// Many sequences are each one block's; one alone is several's, in the backward of two kernels.
TEST_P(TensorCores, WholeSequencesHaveTheBitsOfTheirBlocks) {
  const auto run = [&](const std::vector<std::int64_t>& lengths, const DropoutKey& dropout) {
    Shape shape = causal_shape(lengths, lengths, 4, 32);
    shape.gaps = kAlignedGaps;
    shape.mask = WindowMask{.left = 70, .right = 0};
    Case batch(with_enough_heads(stream, shape), *this);
    if (dropout.rate > 0) batch.token_ids = ids_of_tokens(batch);
    batch.dropout = dropout;
    expect_whole_sequences(batch);
    run_halves(batch);
    expect_same_sequences(batch, {0});
  };
  run({140, 130}, {});
  run({70, 66}, {});
  run({66, 70}, kDropout);
}

TEST_P(TensorCores, BitsAreThoseOfAnotherRunAndOfTheSameMaskInBits) {
  for (const auto& [kind, activation] :
       {std::pair{MaskKind::kHstu, AttentionActivation::kSilu},
        std::pair{MaskKind::kRows, AttentionActivation::kSoftmax}}) {
    std::mt19937 generator(8);
    Shape shape = causal_shape({5, 70, 31}, {5, 70, 31}, 2, 32);
    shape.gaps = kAlignedGaps;
    shape.activation = activation;
    const TestMask mask = random_mask(kind, batch_of(shape), generator, stream);
    const TestMask in_bits = as_bits(mask, batch_of(shape), stream);
    Case c = masked_case(shape, mask, *this), again = c, other = masked_case(shape, in_bits, *this);
    for (Case* x : {&c, &again, &other}) run_halves(*x);
    expect_same_results(c, again);
    expect_same_results(c, other);
  }
}

}  // namespace
}  // namespace serrate
