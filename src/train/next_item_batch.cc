#include "src/train/next_item_batch.h"

#include <numeric>

#include "serrate/random.h"

namespace serrate {
namespace {

/// The values and lengths of one key of a KeyedJaggedTensor under construction.
struct Column {
  std::vector<std::int64_t> values, lengths;

  void add_bag(const FeatureBags& bags, std::int64_t event) {
    const std::int64_t begin = bags.offsets[event], end = bags.offsets[event + 1];
    values.insert(values.end(), bags.values.begin() + begin, bags.values.begin() + end);
    lengths.push_back(end - begin);
  }
  void add_id(std::int64_t id) {
    values.push_back(id);
    lengths.push_back(1);
  }
};

}  // namespace

std::vector<std::int64_t> draw_negatives(std::int64_t num_negatives, std::int64_t num_items,
                                         std::uint64_t seed, std::int64_t step) {
  std::vector<std::int64_t> ids(num_negatives > 0 ? num_negatives : num_items);
  if (num_negatives == 0) {
    std::iota(ids.begin(), ids.end(), 0);
    return ids;
  }
  for (std::int64_t i = 0; i < num_negatives; ++i) {
    const auto index = static_cast<std::uint64_t>(step * num_negatives + i);
    ids[i] = random_below(seed, RandomUse::kNegatives, 0, index, num_items);
  }
  return ids;
}

NextItemBatch make_next_item_batch(const SequenceBatch& sequences,
                                   const std::vector<std::string>& names,
                                   const std::vector<std::int64_t>& negatives,
                                   std::int64_t max_length, const Stream& stream) {
  const std::size_t num_features = names.size();
  std::vector<Column> columns(num_features + 2);
  Column& target = columns[num_features];
  Column& negative = columns[num_features + 1];
  std::vector<std::int64_t> offsets{0}, positions, token_ids;
  const FeatureBags& items = sequences.features.front();

  for (std::size_t s = 0; s < sequences.sample_ids.size(); ++s) {
    const std::int64_t begin = sequences.sequence_offsets[s];
    const std::int64_t num_tokens = sequences.sequence_offsets[s + 1] - begin - 1;
    check(num_tokens <= max_length, "a window is longer than max_length + 1 events");
    for (std::int64_t i = 0; i < num_tokens; ++i) {
      for (std::size_t f = 0; f < num_features; ++f) {
        columns[f].add_bag(sequences.features[f], begin + i);
      }
      target.add_id(items.values[begin + i + 1]);
      positions.push_back(i);
      token_ids.push_back(sequences.sample_ids[s] * max_length + i);
    }
    offsets.push_back(offsets.back() + num_tokens);
  }
  for (const std::int64_t id : negatives) negative.add_id(id);

  std::vector<std::string> keys = names;
  keys.insert(keys.end(), {kTargetFeature, kNegativeFeature});
  std::vector<std::vector<std::int64_t>> values, lengths;
  NextItemBatch batch;
  batch.target_ids = Buffer<std::int64_t>(target.values, stream);
  for (Column& column : columns) {
    values.push_back(std::move(column.values));
    lengths.push_back(std::move(column.lengths));
  }
  batch.epoch = sequences.epoch;
  batch.features = KeyedJaggedTensor::from_lengths(keys, values, lengths, stream);
  batch.sequence_offsets = Buffer<std::int64_t>(offsets, stream);
  batch.positions = Buffer<std::int64_t>(positions, stream);
  batch.token_ids = Buffer<std::int64_t>(token_ids, stream);
  batch.negative_ids = Buffer<std::int64_t>(negatives, stream);
  return batch;
}

}  // namespace serrate
