#include "src/data/sequence_reader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <vector>

#include "serrate/error.h"
#include "src/data/permutation.h"
#include "tests/support/tiny_dataset.h"

namespace serrate {
namespace {

using Ids = std::vector<std::int64_t>;

/// Items of each sequence of a batch, by sample id.
std::map<std::int64_t, Ids> items_by_sample(const SequenceBatch& batch) {
  std::map<std::int64_t, Ids> result;
  for (std::int64_t i = 0; i < batch.num_sequences(); ++i) {
    const auto items = batch.features[0].values.begin();
    result[batch.sample_ids[i]] =
        Ids(items + batch.sequence_offsets[i], items + batch.sequence_offsets[i + 1]);
  }
  return result;
}

/// A split that holds nothing out.
Split train_on_all(const Dataset& dataset) {
  return {{dataset.user_offsets().begin() + 1, dataset.user_offsets().end()}, {}};
}

/// Users with 1 to 40 events; items are numbered through, so they say where an event comes from.
Dataset staircase() {
  std::vector<TinyUser> users;
  std::int64_t item = 0;
  for (std::int64_t user = 0; user < 40; ++user) {
    users.emplace_back().items.resize(user + 1);
    std::iota(users.back().items.begin(), users.back().items.end(), item);
    item += user + 1;
  }
  return tiny_dataset(users, item);
}

TEST(PermutedIndex, IsAPermutationThatSeedAndStreamChange) {
  for (const std::int64_t size : {1, 2, 3, 5, 16, 17, 1000}) {
    Ids order;
    for (std::int64_t i = 0; i < size; ++i) order.push_back(permuted_index(i, size, 7, 0));
    std::ranges::sort(order);
    Ids identity(size);
    std::iota(identity.begin(), identity.end(), 0);
    EXPECT_EQ(order, identity) << size;
  }
  int fixed_by_seed = 0;
  int fixed_by_stream = 0;
  for (std::int64_t i = 0; i < 1000; ++i) {
    fixed_by_seed += permuted_index(i, 1000, 7, 0) == permuted_index(i, 1000, 8, 0);
    fixed_by_stream += permuted_index(i, 1000, 7, 0) == permuted_index(i, 1000, 7, 1);
  }
  EXPECT_LT(fixed_by_seed, 20);  // 1 expected
  EXPECT_LT(fixed_by_stream, 20);
}

TEST(PermutedIndex, PutsEveryElementOfASmallRangeEverywhereEquallyOften) {
  std::vector<std::vector<int>> counts(5, std::vector<int>(5));
  for (std::uint32_t epoch = 0; epoch < 5000; ++epoch) {
    for (std::int64_t i = 0; i < 5; ++i) ++counts[i][permuted_index(i, 5, 1, epoch)];
  }
  for (const auto& row : counts) {
    for (const int count : row) EXPECT_NEAR(count, 1000, 150);  // standard deviation 28
  }
}

TEST(SequenceReader, AllWindowsOverlapByOneEventCountedFromTheEnd) {
  // Seven training events in windows of 2 + 1: [4..6], [2..4], [0..2]; six: the last has [0..1].
  const Dataset dataset =
      tiny_dataset({{{0, 1, 2, 3, 4, 5, 6}}, {{9}}, {{10, 11, 12, 13, 14, 15}}}, 16);
  ReaderOptions options;
  options.max_length = 2;
  const Split split = train_on_all(dataset);
  SequenceReader reader(dataset, split, options);
  EXPECT_EQ(reader.num_windows(), 6);
  const std::map<std::int64_t, Ids> expected = {{0, {4, 5, 6}},    {1, {2, 3, 4}},
                                                {2, {0, 1, 2}},    {3, {13, 14, 15}},
                                                {4, {11, 12, 13}}, {5, {10, 11}}};
  EXPECT_EQ(items_by_sample(reader.read(0)), expected);
}

TEST(SequenceReader, LatestWindowsStopWhereTheSplitStops) {
  const Dataset dataset = tiny_dataset({{{0, 1, 2, 3, 4}}, {{5, 6}}, {{7, 8, 9}}}, 10);
  ReaderOptions options;
  options.max_length = 2;
  options.windows = TrainingWindows::kLatest;
  const Split split = make_split(dataset, SplitKind::kLastItem);
  SequenceReader reader(dataset, split, options);
  const std::map<std::int64_t, Ids> expected = {{0, {1, 2, 3}}, {1, {7, 8}}};
  EXPECT_EQ(items_by_sample(reader.read(0)), expected);
}

TEST(SequenceReader, ReadsBagsOfTheRequestedFeatures) {
  const Dataset dataset = tiny_dataset(
      {{{0, 1, 2}, {5, 6, 7}, {}, {{50, 51}, {}, {52}}}, {{3, 4}, {8, 9}, {}, {{}, {53, 54, 55}}}},
      5);
  const std::vector<EventRange> sequences = {{3, 5}, {1, 3}, {2, 2}};
  const SequenceBatch batch = read_sequences(dataset, sequences, {0, 1}, UnknownIds::kError);
  EXPECT_EQ(batch.sequence_offsets, (Ids{0, 2, 4, 4}));
  EXPECT_EQ(batch.features[0].values, (Ids{3, 4, 1, 2}));
  EXPECT_EQ(batch.features[0].offsets, (Ids{0, 1, 2, 3, 4}));
  EXPECT_EQ(batch.features[1].values, (Ids{53, 54, 55, 52}));
  EXPECT_EQ(batch.features[1].offsets, (Ids{0, 0, 3, 3, 4}));
}

TEST(SequenceReader, AnEpochHasEveryWindowOnceAndTheNextAnotherOrder) {
  const Dataset dataset = staircase();
  ReaderOptions options;
  options.batch_size = 7;
  options.max_length = 10;
  const Split split = train_on_all(dataset);
  SequenceReader reader(dataset, split, options);
  std::vector<Ids> orders;
  for (std::int64_t epoch = 0; epoch < 2; ++epoch) {
    Ids& order = orders.emplace_back();
    for (std::int64_t index = 0; index < reader.batches_per_epoch(); ++index) {
      const SequenceBatch batch = reader.read(epoch * reader.batches_per_epoch() + index);
      EXPECT_EQ(batch.epoch, epoch);
      EXPECT_EQ(batch.index, index);
      order.insert(order.end(), batch.sample_ids.begin(), batch.sample_ids.end());
    }
  }
  EXPECT_NE(orders[0], orders[1]);
  for (Ids& order : orders) {
    std::ranges::sort(order);
    Ids all(reader.num_windows());
    std::iota(all.begin(), all.end(), 0);
    EXPECT_EQ(order, all);
  }
}

TEST(SequenceReader, RanksInOrderMakeTheUnshardedBatch) {
  const Dataset dataset = staircase();
  const Split split = make_split(dataset, SplitKind::kLastItem);
  ReaderOptions options;
  options.batch_size = 5;  // fewer than the ranks below, so that some get nothing
  const SequenceReader whole(dataset, split, options);
  for (const int world_size : {2, 3, 8}) {
    for (std::int64_t step = 0; step < 2 * whole.batches_per_epoch(); ++step) {
      Ids sample_ids;
      Ids items;
      for (int rank = 0; rank < world_size; ++rank) {
        options.shares = {.count = world_size, .begin = rank, .end = rank + 1};
        const SequenceBatch part = SequenceReader(dataset, split, options).read(step);
        EXPECT_LE(part.num_sequences(), (options.batch_size + world_size - 1) / world_size);
        sample_ids.insert(sample_ids.end(), part.sample_ids.begin(), part.sample_ids.end());
        const Ids& values = part.features[0].values;
        items.insert(items.end(), values.begin(), values.end());
      }
      const SequenceBatch batch = whole.read(step);
      EXPECT_EQ(sample_ids, batch.sample_ids);
      EXPECT_EQ(items, batch.features[0].values);
    }
  }
}

TEST(SequenceReader, RefusesADatasetWithNothingToTrainOn) {
  const Dataset dataset = tiny_dataset({{{0, 1}}, {{1}}}, 2);
  const Split split = make_split(dataset, SplitKind::kLastItem);
  EXPECT_THROW(SequenceReader(dataset, split, {}), Error);
}

}  // namespace
}  // namespace serrate
