#include "src/train/next_item_batch.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <numeric>

#include "comm/tree_sum.h"
#include "serrate/host_buffer.h"
#include "serrate/random.h"
#include "src/core/profiler_range.h"

namespace serrate {
namespace {

/// The values and offsets of one key of a KeyedJaggedTensor under construction.
struct Column {
  std::vector<std::int64_t> values, offsets{0};

  void add_bag(const FeatureBags& bags, std::int64_t event) {
    const std::int64_t begin = bags.offsets[event], end = bags.offsets[event + 1];
    values.insert(values.end(), bags.values.begin() + begin, bags.values.begin() + end);
    offsets.push_back(std::ssize(values));
  }
  void add_id(std::int64_t id) {
    values.push_back(id);
    offsets.push_back(std::ssize(values));
  }
};

/// Memory that streams copy batches from, in turns: the next is filled while others are on their
/// way. A stream has its own.
class Staging {
 public:
  explicit Staging(const Stream& stream) : device_(stream.device()) {}

  struct Turn {
    HostBuffer<std::int64_t> memory;
    Event is_copied;
  };
  Turn& next(std::int64_t num_words) {
    Turn& turn = turns_[next_++ % turns_.size()];
    // It is, where a prefetcher has no more than two batches ready.
    if (!turn.is_copied.is_reached()) turn.is_copied.synchronize();
    turn.memory.resize_discard(num_words, device_);
    return turn;
  }

 private:
  Device device_;
  std::array<Turn, 4> turns_;
  std::size_t next_ = 0;
};

/// The arrays of one batch, of at most num_words together, on their way to the device.
class Upload {
 public:
  Upload(std::int64_t num_words, const Stream& stream)
      : turn_(stream.attached<Staging>().next(num_words)), stream_(stream) {}

  /// The parts one after the other.
  Buffer<std::int64_t> add(std::span<const std::span<const std::int64_t>> parts) {
    const std::int64_t begin = end_;
    for (const auto part : parts) {
      check(end_ + std::ssize(part) <= std::ssize(turn_.memory.span()),
            "a batch has the number of words that it was given memory for");
      std::ranges::copy(part, turn_.memory.span().subspan(end_).begin());
      end_ += std::ssize(part);
    }
    Buffer<std::int64_t> on_device(end_ - begin, stream_);
    copy_async(turn_.memory, begin, on_device.span(), stream_);
    return on_device;
  }
  Buffer<std::int64_t> add(std::span<const std::int64_t> values) { return add({&values, 1}); }

  /// When all is there.
  Event finish() {
    Event is_there(stream_.device());
    is_there.record(stream_);
    turn_.is_copied = Event(stream_.device());
    turn_.is_copied.record(stream_);
    return is_there;
  }

 private:
  Staging::Turn& turn_;
  const Stream& stream_;
  std::int64_t end_ = 0;
};

/// Adds runs of sequences [begin, last) of at most `most_tokens` tokens; a longer sequence is
/// alone.
void cut(std::span<const std::int64_t> offsets, std::int64_t begin, std::int64_t last,
         std::int64_t most_tokens, Upload& upload, std::vector<MicroBatch>& parts) {
  while (begin < last) {
    std::int64_t end = begin + 1;
    while (end < last && offsets[end + 1] - offsets[begin] <= most_tokens) ++end;
    std::vector<std::int64_t> own;
    for (std::int64_t s = begin; s <= end; ++s) own.push_back(offsets[s] - offsets[begin]);
    parts.push_back({.first_token = offsets[begin],
                     .sequence_offsets = upload.add(own),
                     .num_tokens = own.back()});
    begin = end;
  }
}

/// Share by share: what passes through the encoder together does not depend on the rank's others.
void cut_shares(std::span<const std::int64_t> offsets, std::vector<std::int64_t> share_offsets,
                std::int64_t most_tokens, Upload& upload, NextItemBatch& batch) {
  const std::int64_t num_sequences = std::ssize(offsets) - 1;
  if (share_offsets.empty()) share_offsets = {0, num_sequences};
  check(share_offsets.back() == num_sequences, "the shares of a batch have all of its sequences");
  batch.share_begins = {0};
  for (std::size_t share = 1; share < share_offsets.size(); ++share) {
    cut(offsets, share_offsets[share - 1], share_offsets[share], most_tokens, upload,
        batch.micro_batches);
    batch.share_begins.push_back(std::ssize(batch.micro_batches));
  }
}

enum class Targets { kNextEvent, kNone };

NextItemBatch make_batch(const SequenceBatch& sequences, const std::vector<std::string>& names,
                         Targets targets, const std::vector<std::int64_t>& negatives,
                         const BatchShape& shape, const Stream& stream) {
  const std::size_t num_features = names.size();
  const FeatureBags& items = sequences.features.front();
  const std::int64_t held_back = targets == Targets::kNextEvent ? 1 : 0;
  std::vector<Column> columns(num_features + 2);
  Column& target = columns[num_features];
  Column& negative = columns[num_features + 1];
  std::vector<std::int64_t> offsets{0}, positions, token_ids;

  NextItemBatch batch;
  std::vector<std::int64_t> events;  // of a sequence, those that are kept
  for (std::int64_t s = 0; s < sequences.num_sequences(); ++s) {
    events.clear();
    for (std::int64_t e = sequences.sequence_offsets[s]; e < sequences.sequence_offsets[s + 1];
         ++e) {
      const bool known = items.values[e] >= 0 && items.values[e] < shape.num_items;
      if (known || shape.invalid_ids != InvalidIds::kDrop) events.push_back(e);
    }
    const std::int64_t num_events =
        sequences.sequence_offsets[s + 1] - sequences.sequence_offsets[s];
    batch.dropped_events += num_events - std::ssize(events);
    const std::int64_t num_tokens = std::max<std::int64_t>(std::ssize(events) - held_back, 0);
    check(num_tokens <= shape.max_length, "a sequence has more than max_length inputs");
    for (std::int64_t i = 0; i < num_tokens; ++i) {
      for (std::size_t f = 0; f < num_features; ++f) {
        columns[f].add_bag(sequences.features[f], events[i]);
      }
      positions.push_back(i);
      if (targets == Targets::kNextEvent) {
        target.add_id(items.values[events[i + 1]]);
        token_ids.push_back(sequences.sample_ids[s] * shape.max_length + i);
      } else {
        token_ids.push_back(s * shape.max_length + i);
      }
    }
    offsets.push_back(offsets.back() + num_tokens);
  }
  const LeafRange own = leaves_of_rank(std::ssize(negatives), shape.rank, shape.world_size);
  for (std::int64_t i = own.begin; i < own.end; ++i) negative.add_id(negatives[i]);

  std::vector<std::string> keys = names;
  keys.insert(keys.end(), {kTargetFeature, kNegativeFeature});
  const std::int64_t num_tokens = std::ssize(positions);
  std::vector<std::int64_t> bags_per_key, values_per_key;
  constexpr std::int64_t kZero = 0;
  std::vector<std::span<const std::int64_t>> values, bag_offsets{{&kZero, 1}};
  std::int64_t num_values = 0, num_bags = 0;
  for (Column& column : columns) {  // the columns' offsets become the batch's
    for (std::int64_t& offset : column.offsets) offset += num_values;
    values.push_back(column.values);
    bag_offsets.push_back(std::span(column.offsets).subspan(1));
    values_per_key.push_back(std::ssize(values.back()));
    bags_per_key.push_back(std::ssize(bag_offsets.back()));
    num_values += values_per_key.back();
    num_bags += bags_per_key.back();
  }
  Upload upload(num_values + num_bags + 1 + std::ssize(target.values) + std::ssize(negatives) +
                    2 * sequences.num_sequences() + 2 * num_tokens,
                stream);
  batch.epoch = sequences.epoch;
  batch.features = {
      keys,           bags_per_key, values_per_key, upload.add(values), upload.add(bag_offsets),
      Buffer<float>()};
  batch.target_ids = upload.add(target.values);
  batch.negative_ids = upload.add(negatives);
  cut_shares(offsets, sequences.share_offsets, shape.micro_batch_tokens, upload, batch);
  batch.positions = upload.add(positions);
  batch.token_ids = upload.add(token_ids);
  batch.is_on_device = upload.finish();
  return batch;
}

}  // namespace

TokenBatch NextItemBatch::tokens(const MicroBatch& part) const {
  return {.sequence_offsets = part.sequence_offsets.span(),
          .positions = positions.span().subspan(part.first_token, part.num_tokens),
          .token_ids = token_ids.span().subspan(part.first_token, part.num_tokens)};
}

UnknownIds unknown_ids(InvalidIds policy) {
  return policy == InvalidIds::kError ? UnknownIds::kError : UnknownIds::kKeep;
}

BatchShape batch_shape(const TrainOptions& options, std::int64_t num_items) {
  return {.max_length = options.model.max_length,
          .micro_batch_tokens = options.micro_batch_tokens,
          .num_items = num_items,
          .invalid_ids = options.invalid_ids};
}

BatchShares batch_shares(const TrainOptions& options, int rank, int world_size) {
  const std::int64_t count = options.reproducible ? options.virtual_ranks : world_size;
  if (world_size > count) {
    throw usage_error(
        fmt::format("--reproducible with --virtual-ranks {} runs on at most {} ranks, not {} (a "
                    "rank has one virtual rank or more)",
                    count, count, world_size));
  }
  const LeafRange own = leaves_of_rank(count, rank, world_size);
  return {.count = count, .begin = own.begin, .end = own.end};
}

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
                                   const BatchShape& shape, const Stream& stream) {
  const ProfilerRange range("make batch");
  return make_batch(sequences, names, Targets::kNextEvent, negatives, shape, stream);
}

NextItemBatch make_history_batch(const SequenceBatch& sequences,
                                 const std::vector<std::string>& names, const BatchShape& shape,
                                 const Stream& stream) {
  return make_batch(sequences, names, Targets::kNone, {}, shape, stream);
}

}  // namespace serrate
