// Few queries, and candidates, over long histories on tensor cores.
#include <gtest/gtest.h>

#include <random>
#include <utility>
#include <vector>

#include "tests/kernels/attention/decoding_case.h"
#include "tests/kernels/attention/masks.h"

namespace serrate {
namespace {

// Heads in groups of four, 4 to 64 rows, or 16: three chunks, two and one, and a history that is
// short.
Shape rows_of_four_heads(std::int64_t head_dim) {
  Shape shape = full_shape({1, 5, 16, 2}, {520, 970, 260, 70}, 4, head_dim);
  if (head_dim == 256) shape.query_lengths = {1, 3, 4, 2}, shape.key_lengths[1] = 590;
  shape.num_key_heads = 1;
  shape.gaps = kAlignedGaps;
  return shape;
}

class TensorCoreDecoding : public KernelTestOver<std::int64_t> {};
INSTANTIATE_TEST_SUITE_P(HeadDims, TensorCoreDecoding,
                         testing::Combine(testing::ValuesIn(test_devices()),
                                          testing::Values(32, 64, 128, 256)));

TEST_P(TensorCoreDecoding, MatchesTheReferenceOfTheRoundedInputs) {
  for (const auto& [activation, half] :
       {std::pair{AttentionActivation::kSoftmax, DataType::kBFloat16},
        {AttentionActivation::kSoftmax, DataType::kFloat16},
        {AttentionActivation::kSilu, DataType::kFloat16}}) {
    Shape shape = rows_of_four_heads(param());
    shape.activation = activation;
    Case c(shape, *this);
    expect_reference(c, Backward::kNotRun, half);
  }
}

// Candidates of a history: 68 rows, and, where wgmma does not multiply faster, 132.
TEST_P(TensorCoreDecoding, CandidatesMatchTheReference) {
  if (param() > 128) return;  // few rows alone
  for (const bool have_extras : {false, true}) {
    Shape shape = full_shape({17, 33}, {1100, 1030}, 4, param());
    shape.num_key_heads = 1;
    shape.gaps = kAlignedGaps;
    if (have_extras && param() != 64) continue;
    if (have_extras) shape.query_lengths.pop_back(), shape.key_lengths.pop_back();
    Case c(shape, *this);
    if (have_extras) set_dropout(c);
    if (stream.device().type != DeviceType::kCpu && !have_extras) {
      const bool on_wgmma = has_wgmma(stream) && param() >= 64;
      EXPECT_EQ(tasks_of(c).decoding, on_wgmma ? 4 : 4 + 6);
    }
    expect_reference(c, Backward::kNotRun);
  }
}

// In tf32 few rows decode, by products of float32, and candidates do not.
TEST_P(TensorCoreDecoding, FewRowsAndCandidatesMatchTheReferenceInTf32) {
  Shape shape = full_shape({1, 17}, {520, param() == 256 ? 260 : 1100}, 4, param());
  shape.num_key_heads = 1;
  shape.gaps = kAlignedGaps;
  Case c(shape, *this);
  round_to_tf32(c);
  if (stream.device().type != DeviceType::kCpu) {
    AttentionForward args = c.forward_args();
    args.precision = Precision::kTf32;
    EXPECT_EQ(tasks_of(args, stream).decoding, 3);  // chunks of 4 rows; none of 68
  }
  expect_reference(c, Backward::kNotRun, DataType::kFloat32);
}

// At 256 columns these are the plain kernel's.
TEST_P(TensorCoreDecoding, DropoutAndMasksOfPairsMatchTheReference) {
  Shape shape = rows_of_four_heads(param());
  shape.query_lengths = {1, 4, 2}, shape.key_lengths = {290, 300, 130};
  std::mt19937 generator(1);
  const TestMask mask = random_mask(MaskKind::kColumns, batch_of(shape), generator, stream);
  Case c = masked_case(shape, mask, *this);
  set_dropout(c);
  expect_reference(c, Backward::kNotRun);
}

// One sequence alone is cut, as its blocks would be too few; of eight, a block takes both chunks.
// The third one is candidates in two blocks of rows, or three. In float32 these are not cut.
TEST_P(TensorCoreDecoding, ChunksOfOneBlockHaveTheBitsOfThoseOfSeveral) {
  Shape shape = rows_of_four_heads(param());
  const std::int64_t candidates = param() == 256 ? 1 : param() == 32 ? 33 : 17;
  const std::int64_t blocks = ceil_div(4 * candidates, 64), history = param() == 256 ? 260 : 1030;
  shape.query_lengths = {1, shape.query_lengths[1], candidates, 1, 1, 1, 1, 1};
  shape.key_lengths = {290, shape.key_lengths[1], history, 260, 260, 260, 260, 260};
  shape = with_enough_heads(stream, shape);
  Case batch(shape, *this);
  if (stream.device().type != DeviceType::kCpu) {
    const auto expect_cut = [&](std::size_t s, std::int64_t tasks) {
      Shape only = shape;
      only.query_lengths = {shape.query_lengths[s]}, only.key_lengths = {shape.key_lengths[s]};
      Case alone(only, *this);
      EXPECT_EQ(tasks_of(alone).decoding, tasks * shape.num_key_heads);
    };
    EXPECT_EQ(tasks_of(batch).decoding, (7 + blocks) * shape.num_key_heads);
    expect_cut(0, 2), expect_cut(2, 2 * blocks);
  }
  for (const Stored stored : {Stored::kAsBFloat16, Stored::kAsFloat32}) {
    if (stored == Stored::kAsFloat32 && param() > 32) continue;
    run_forward(batch, stored);
    if (stored == Stored::kAsFloat32) {
      expect_close(batch.out, reference::attention_forward(batch.in_double()).out, 4e-6);
    }
    for (std::size_t s = 0; s < 3; ++s) expect_same_alone(batch, s, stored);
  }
}

}  // namespace
}  // namespace serrate
