// What runs on tensor cores where there are any: bfloat16 or float16 in rows that are aligned to 16
// bytes, of 32, 64, 128 or 256 columns, and float32 in tf32. Weights are rounded to that type
// before they meet values.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <tuple>
#include <utility>
#include <vector>

#include "tests/kernels/attention/distinct_masks.h"
#include "tests/kernels/attention/tensor_core_cases.h"

namespace serrate {
namespace {

// Up to 16 and up to 32 queries and keys, one tile, several, and of one side alone. With four heads
// of keys there are enough for blocks of the simulated device that take whole sequences; with one a
// block takes a tile.
Shape some_of_each_size(MaskKind kind, std::int64_t head_dim) {
  const bool is_whole = kind == MaskKind::kCausal || kind == MaskKind::kRows ||
                        kind == MaskKind::kBlocks || kind == MaskKind::kDocuments;
  const std::int64_t heads = is_whole ? 4 : 2;
  Shape shape{{5, 0, 70, 16, 31, 129, 9, 64, 70, 0},
              {3, 7, 130, 16, 20, 70, 0, 64, 0, 70},
              heads,
              head_dim};
  if (kind >= MaskKind::kDocuments) shape.key_lengths = shape.query_lengths;
  shape.num_key_heads = is_whole ? 4 : 1;
  shape.gaps = kAlignedGaps;
  return shape;
}

class TensorCoreMasks : public KernelTestOver<int> {};
INSTANTIATE_TEST_SUITE_P(All, TensorCoreMasks,
                         testing::Combine(testing::ValuesIn(test_devices()),
                                          testing::Range(0, static_cast<int>(MaskKind::kHstu) + 1)),
                         [](const auto& test) {
                           return to_string(static_cast<MaskKind>(std::get<1>(test.param)));
                         });

TEST_P(TensorCoreMasks, MatchTheReferenceOfTheRoundedInputs) {
  std::mt19937 generator(static_cast<unsigned>(param()));
  const auto kind = static_cast<MaskKind>(param());
  const Shape shape = some_of_each_size(kind, 32);
  const TestMask mask = random_mask(kind, batch_of(shape), generator, stream);
  Case c = masked_case(shape, mask, *this);
  expect_reference(c);
}

class TensorCoreMasksInTf32 : public KernelTestOver<MaskKind> {};
INSTANTIATE_TEST_SUITE_P(All, TensorCoreMasksInTf32,
                         testing::Combine(testing::ValuesIn(test_devices()),
                                          testing::ValuesIn(kDistinctMasks)),
                         name_of_mask);

// With 32 columns there is room for float32 everywhere: what tensor cores round need not be rounded
// before.
TEST_P(TensorCoreMasksInTf32, MatchTheReference) {
  const MaskKind kind = param();
  std::mt19937 generator(static_cast<unsigned>(kind));
  Shape shape = some_of_each_size(kind, 32);
  const TestMask mask = random_mask(kind, batch_of(shape), generator, stream);
  Case c = masked_case(shape, mask, *this);
  expect_reference(c, Backward::kOnTensorCores, DataType::kFloat32);
}

INSTANTIATE_TEST_SUITE_P(Device, TensorCores, testing::ValuesIn(test_devices()), device_name);

TEST_P(TensorCores, MasksOfPairsAndBiasesInWideHeads) {
  for (const auto& [kind, head_dim, half] :
       {std::tuple{MaskKind::kColumns, 128, DataType::kBFloat16},
        {MaskKind::kBlocks, 128, DataType::kBFloat16},
        {MaskKind::kBlocks, 256, DataType::kBFloat16},
        {MaskKind::kBlocks, 256, DataType::kFloat32}}) {
    std::mt19937 generator(1);
    Shape shape = causal_shape({70, 20}, {100, 31}, 1, head_dim);
    shape.gaps = kAlignedGaps;
    const TestMask mask = random_mask(kind, batch_of(shape), generator, stream);
    Case c = masked_case(shape, mask, *this);
    if (half == DataType::kFloat32) round_to_tf32(c);
    Biases biases(c);
    expect_reference(c, Backward::kOnTensorCores, half, &biases);
  }
}

TEST_P(TensorCores, EveryHeadDimAndActivation) {
  for (const std::int64_t head_dim : {64, 128, 256}) {
    for (const auto& [activation, half] :
         {std::pair{AttentionActivation::kSoftmax, DataType::kBFloat16},
          {AttentionActivation::kSoftmax, DataType::kFloat16},
          {AttentionActivation::kSilu, DataType::kFloat16}}) {
      Shape shape = causal_shape({20, 70, 3}, {20, 65, 9}, head_dim == 64 ? 2 : 1, head_dim);
      shape.activation = activation;
      shape.gaps = kAlignedGaps;
      Case c(shape, *this);
      expect_reference(c, Backward::kOnTensorCores, half);
    }
  }
}

// All of a call but masks: heads that share keys, biases, tables and dropout with either
// activation.
TEST_P(TensorCores, EveryHeadDimAndOptionInTf32) {
  for (const std::int64_t head_dim : {32, 64, 128, 256}) {
    for (const AttentionActivation activation :
         {AttentionActivation::kSoftmax, AttentionActivation::kSilu}) {
      SCOPED_TRACE(testing::Message() << "head_dim " << head_dim);
      Shape shape = causal_shape({20, 140, 3}, {20, 65, 9}, 2, head_dim);
      if (head_dim == 256) {  // by halves of tiles; other tests have softmax
        if (activation == AttentionActivation::kSoftmax) continue;
        shape.query_lengths = {20, 66, 3, 40}, shape.key_lengths = {20, 65, 9, 50};
      }
      shape.num_key_heads = head_dim == 64 ? 2 : 1;
      shape.activation = activation;
      shape.gaps = kAlignedGaps;
      Case c(shape, *this);
      if (head_dim == 32) {
        Biases biases(c);
        expect_reference(c, Backward::kOnTensorCores, DataType::kFloat32, &biases);
      } else {
        round_to_tf32(c);
        if (activation == AttentionActivation::kSilu) set_dropout(c);
        expect_reference(c, Backward::kOnTensorCores, DataType::kFloat32);
      }
    }
  }
}

TEST_P(TensorCores, WholeSequences) {
  Shape shared = causal_shape({129, 130}, {150, 70}, 8, 32);
  shared.num_key_heads = 4;
  for (auto [shape, half] : {std::pair{shared, DataType::kBFloat16},
                             {causal_shape({70}, {67}, 8, 128), DataType::kBFloat16},
                             {causal_shape({20}, {70}, 8, 64), DataType::kBFloat16},
                             {causal_shape({66}, {40}, 8, 256), DataType::kFloat32}}) {
    SCOPED_TRACE(testing::Message() << "head_dim " << shape.head_dim);
    shape.gaps = kAlignedGaps;
    Case c(with_enough_heads(stream, shape), *this);
    if (half == DataType::kFloat32) round_to_tf32(c);
    expect_whole_sequences(c);
    expect_reference(c, Backward::kOnTensorCores, half);
  }
}

TEST_P(TensorCores, WholeSequencesInFloat16) {
  Shape shape = causal_shape({129, 130}, {150, 70}, 4, 32);
  shape.gaps = kAlignedGaps;
  Case c(with_enough_heads(stream, shape), *this);
  expect_whole_sequences(c);
  expect_reference(c, Backward::kOnTensorCores, DataType::kFloat16);
}

// By classes of size, powers of two of the longer side from 16 on; of a class, in the batch's
// order.
TEST_P(TensorCores, LongestSequencesComeFirst) {
  if (stream.device().type == DeviceType::kCpu) return;
  constexpr int kSequences = 300;
  std::mt19937 generator(1);
  Shape shape = causal_shape({}, {}, 1, 32);
  std::vector<std::int64_t> expected(kSequences), classes;
  for (int s = 0; s < kSequences; ++s) {
    const unsigned most = 1u << generator() % 11;
    for (auto* lengths : {&shape.query_lengths, &shape.key_lengths}) {
      lengths->push_back(generator() % (most + 1));
    }
    const auto longer =
        static_cast<unsigned>(std::max(shape.query_lengths.back(), shape.key_lengths.back()));
    classes.push_back(longer <= 16 ? 4 : std::bit_width(longer - 1));
    expected[s] = s;
  }
  std::ranges::stable_sort(expected, std::ranges::greater(),
                           [&](std::int64_t s) { return classes[s]; });
  Case c(shape, *this);
  EXPECT_EQ(order_of(c), expected);
}

// Where gradients of scores are beyond float16, tensor cores give no number, never a wrong one.
TEST_P(TensorCores, GradientsOfScoresBeyondFloat16AreNotLostInSilence) {
  Shape shape = causal_shape({70}, {70}, 1, 32);
  shape.gaps = kAlignedGaps;
  Case c(shape, *this);
  c.k.for_each([](float& x, std::int64_t) { x *= 1e-3f; });
  c.v.for_each([](float& x, std::int64_t) { x *= 100; });
  c.d_out.for_each([](float& x, std::int64_t) { x *= 3000; });
  run_halves(c, Backward::kOnTensorCores, DataType::kFloat16);
  const std::vector<double> expected =
      reference::attention_backward(c.in_double(), c.d_out.dense()).d_q;
  const double largest = std::abs(*std::ranges::max_element(
      expected, [](double a, double b) { return std::abs(a) < std::abs(b); }));
  ASSERT_LT(largest, 65504);
  std::int64_t not_finite = 0;
  c.d_q.for_each([&](float& x, std::int64_t i) {
    if (std::isfinite(x)) {
      EXPECT_LE(std::abs(x - expected[i]), 2 * rounding_of(DataType::kFloat16) * largest);
    } else {
      ++not_finite;
    }
  });
  EXPECT_EQ(not_finite > 0, stream.device().type != DeviceType::kCpu);
}

// More tiles of keys than there is room for. The first queries of both blocks see all of them.
TEST_P(TensorCores, WholeSequencesThatDoNotFit) {
  Shape shape = causal_shape({129}, {400}, 8, 128);
  shape.gaps = kAlignedGaps;
  shape.visible = [](std::int64_t, std::int64_t i, std::int64_t j) {
    return i % 128 == 0 || j < 2;
  };
  std::vector<std::int64_t> ranges(kTokensBefore * 4);
  for (std::int64_t i = 0; i < 129; ++i) {
    ranges.insert(ranges.end(), {0, i % 128 == 0 ? 400 : 2, 0, 0});
  }
  const Buffer<std::int64_t> on_device(ranges, stream);
  shape.mask = RowMask{on_device.span()};
  Case c(with_enough_heads(stream, shape), *this);
  expect_whole_sequences(c);
  expect_reference(c);
}

// More keys than a list of tiles holds: some of the first and of the last list are seen. At
// head_dim 64 there are three, as Hopper's kernel has room for two.
TEST_P(TensorCores, ManyTilesOfKeys) {
  for (const std::int64_t head_dim : {32, 64, 256}) {
    const std::int64_t num_keys = head_dim == 64 ? 16'450 : 8'250;
    const std::int64_t keys_of[2][4] = {{100, 130, num_keys - 60, num_keys - 50},
                                        {4'750, 4'751, num_keys - 10, num_keys}};
    Shape shape = causal_shape({65}, {num_keys}, 1, head_dim);  // fewer would decode
    shape.gaps = kAlignedGaps;
    std::vector<std::int64_t> ranges(kTokensBefore * 4);
    for (const auto& of_query : keys_of) ranges.insert(ranges.end(), of_query, of_query + 4);
    ranges.resize(ranges.size() + 63 * 4);  // the others see nothing
    const Buffer<std::int64_t> on_device(ranges, stream);
    shape.mask = RowMask{on_device.span()};
    shape.visible = [&](std::int64_t, std::int64_t i, std::int64_t j) {
      if (i > 1) return false;
      const auto& keys = keys_of[i];
      return (keys[0] <= j && j < keys[1]) || (keys[2] <= j && j < keys[3]);
    };
    Case c(shape, *this);
    expect_reference(c);
  }
}

// Likewise of queries, for blocks that own keys; at head_dim 64 two heads share these.
TEST_P(TensorCores, ManyTilesOfQueries) {
  constexpr std::int64_t kQueries = 8'260;
  const std::vector<std::int64_t> seeing = {3, 100, 4'000, 8'190, 8'200, 8'259};
  for (const std::int64_t head_dim : {64, 256}) {
    if (head_dim == 256 && !has_wgmma(stream)) continue;
    Shape shape = causal_shape({kQueries}, {66}, head_dim == 64 ? 2 : 1, head_dim);
    shape.num_key_heads = 1;
    shape.gaps = kAlignedGaps;
    std::vector<std::int64_t> ranges(kTokensBefore * 4 + kQueries * 4);
    for (const std::int64_t query : seeing) ranges[(kTokensBefore + query) * 4 + 1] = 66;
    const Buffer<std::int64_t> on_device(ranges, stream);
    shape.mask = RowMask{on_device.span()};
    shape.visible = [&](std::int64_t, std::int64_t i, std::int64_t) {
      return std::ranges::find(seeing, i) != seeing.end();
    };
    Case c(shape, *this);
    expect_reference(c);
  }
}

// ---- more than 512 queries or keys, 256 at head_dim 256: Hopper's own kernels where there are any

class TensorCoreMasksOfLongSequences : public KernelTestOver<MaskKind> {};
INSTANTIATE_TEST_SUITE_P(All, TensorCoreMasksOfLongSequences,
                         testing::Combine(testing::ValuesIn(test_devices()),
                                          testing::ValuesIn(kDistinctMasks)),
                         name_of_mask);

TEST_P(TensorCoreMasksOfLongSequences, MatchTheReference) {
  const MaskKind kind = param();
  std::mt19937 generator(static_cast<unsigned>(kind));
  const bool has_own_lengths = kind < MaskKind::kDocuments;
  Shape shape = causal_shape({has_own_lengths ? 70 : 520, 20}, {520, 20}, 1, 64);
  shape.gaps = kAlignedGaps;
  const TestMask mask = random_mask(kind, batch_of(shape), generator, stream);
  Case c = masked_case(shape, mask, *this);
  expect_reference(c);
}

// Windows that begin and end within the 16 queries at either end of a tile of 64: what these see of
// the tile is not what the others do.
TEST_P(TensorCores, WindowsThatBeginAndEndWithinARunOfQueries) {
  for (const auto& [keys, left] : {std::pair<std::int64_t, std::int64_t>{570, 420}, {526, 400}}) {
    Shape shape = causal_shape({70}, {keys}, 1, 64);
    shape.gaps = kAlignedGaps;
    shape.mask = WindowMask{left, 0, MaskCorner::kBottomRight};
    shape.visible = [keys, left](std::int64_t, std::int64_t i, std::int64_t j) {
      const std::int64_t own = i + keys - 70;
      return own - left <= j && j <= own;
    };
    Case c(shape, *this);
    expect_reference(c);
  }
}

// Ragged ends, sequences of one side, one of a single tile of keys, one that is short; two blocks
// of queries whose second group has none.
TEST_P(TensorCores, LongSequencesOfEveryHeadDimActivationAndType) {
  for (const auto& [head_dim, activation, half] :
       {std::tuple{64, AttentionActivation::kSilu, DataType::kFloat16},
        {128, AttentionActivation::kSoftmax, DataType::kBFloat16},
        {256, AttentionActivation::kSilu, DataType::kFloat16}}) {
    const std::int64_t heads = head_dim == 64 ? 2 : 1, most = most_of_whole(head_dim);
    Shape shape = full_shape({70, 20, 0, most + 1, most + 8}, {most + 8, 31, most + 18, 40, 0},
                             heads, head_dim);
    shape.num_key_heads = 1;
    shape.activation = activation;
    shape.gaps = kAlignedGaps;
    Case c(shape, *this);
    expect_reference(c, Backward::kOnTensorCores, half);
  }
}

TEST_P(TensorCores, LongSequencesWithBiasesTablesAndDropout) {
  for (const std::int64_t head_dim : {64, 128, 256}) {
    Shape shape = causal_shape({66, 20}, {most_of_whole(head_dim) + 18, 31}, 2, head_dim);
    shape.num_key_heads = 1;
    shape.gaps = kAlignedGaps;
    Case c(shape, *this);
    Biases biases(c);
    set_dropout(c);
    expect_reference(c, backward_of_long(head_dim), DataType::kFloat16, &biases);
  }
}

// Several blocks of queries of a sequence in one head, one after the other.
TEST_P(TensorCores, MasksOfLongSequencesInTheWidestHeads) {
  for (const MaskKind kind : {MaskKind::kRows, MaskKind::kBlocks, MaskKind::kCausal}) {
    std::mt19937 generator(3);
    const bool is_causal = kind == MaskKind::kCausal;
    Shape shape = causal_shape({is_causal ? 130 : 70, 20}, {300, 20}, is_causal ? 2 : 1, 256);
    shape.num_key_heads = 1;
    shape.gaps = kAlignedGaps;
    const TestMask mask = random_mask(kind, batch_of(shape), generator, stream);
    Case c = masked_case(shape, mask, *this);
    expect_reference(c, backward_of_long(256));
  }
}

}  // namespace
}  // namespace serrate
