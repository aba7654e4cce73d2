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

enum class Targets { kNextEvent, kNone };

NextItemBatch make_batch(const SequenceBatch& sequences, const std::vector<std::string>& names,
                         Targets targets, const std::vector<std::int64_t>& negatives,
                         std::int64_t max_length, const Stream& stream) {
  const std::size_t num_features = names.size();
  const FeatureBags& items = sequences.features.front();
  const std::int64_t held_back = targets == Targets::kNextEvent ? 1 : 0;
  std::vector<Column> columns(num_features + 2);
  Column& target = columns[num_features];
  Column& negative = columns[num_features + 1];
  std::vector<std::int64_t> offsets{0}, positions, token_ids;

  for (std::int64_t s = 0; s < sequences.num_sequences(); ++s) {
    const std::int64_t begin = sequences.sequence_offsets[s];
    const std::int64_t num_tokens = sequences.sequence_offsets[s + 1] - begin - held_back;
    check(num_tokens <= max_length, "a sequence has more than max_length inputs");
    for (std::int64_t i = 0; i < num_tokens; ++i) {
      for (std::size_t f = 0; f < num_features; ++f) {
        columns[f].add_bag(sequences.features[f], begin + i);
      }
      positions.push_back(i);
      if (targets == Targets::kNextEvent) {
        target.add_id(items.values[begin + i + 1]);
        token_ids.push_back(sequences.sample_ids[s] * max_length + i);
      }
    }
    offsets.push_back(offsets.back() + num_tokens);
  }
  for (const std::int64_t id : negatives) negative.add_id(id);

  std::vector<std::string> keys = names;
  keys.insert(keys.end(), {kTargetFeature, kNegativeFeature});
  std::vector<std::vector<std::int64_t>> values, lengths;
  NextItemBatch batch;
  batch.epoch = sequences.epoch;
  batch.target_ids = Buffer<std::int64_t>(target.values, stream);
  batch.negative_ids = Buffer<std::int64_t>(negatives, stream);
  for (Column& column : columns) {
    values.push_back(std::move(column.values));
    lengths.push_back(std::move(column.lengths));
  }
  batch.features = KeyedJaggedTensor::from_lengths(keys, values, lengths, stream);
  batch.sequence_offsets = Buffer<std::int64_t>(offsets, stream);
  batch.positions = Buffer<std::int64_t>(positions, stream);
  batch.token_ids = Buffer<std::int64_t>(token_ids, stream);
  return batch;
}

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
  return make_batch(sequences, names, Targets::kNextEvent, negatives, max_length, stream);
}

NextItemBatch make_history_batch(const SequenceBatch& sequences,
                                 const std::vector<std::string>& names, std::int64_t max_length,
                                 const Stream& stream) {
  return make_batch(sequences, names, Targets::kNone, {}, max_length, stream);
}

}  // namespace serrate
