#include "src/data/sequence_reader.h"

#include <algorithm>
#include <utility>

#include "serrate/error.h"
#include "src/core/profiler_range.h"
#include "src/data/permutation.h"

namespace serrate {
namespace {

/// Numbers the windows of all users: a window needs an input and a target.
std::vector<std::int64_t> count_windows(const std::vector<std::int64_t>& user_offsets,
                                        const Split& split, const ReaderOptions& options) {
  std::vector<std::int64_t> window_offsets(user_offsets.size(), 0);
  for (std::size_t user = 0; user + 1 < user_offsets.size(); ++user) {
    const std::int64_t targets = split.train_end[user] - user_offsets[user] - 1;
    std::int64_t windows =
        std::max<std::int64_t>(0, targets + options.max_length - 1) / options.max_length;
    if (options.windows == TrainingWindows::kLatest) windows = std::min<std::int64_t>(windows, 1);
    window_offsets[user + 1] = window_offsets[user] + windows;
  }
  return window_offsets;
}

void append(const FeatureBags& from, FeatureBags& to) {
  const auto base = static_cast<std::int64_t>(to.values.size());
  to.values.insert(to.values.end(), from.values.begin(), from.values.end());
  for (std::size_t bag = 1; bag < from.offsets.size(); ++bag) {
    to.offsets.push_back(base + from.offsets[bag]);
  }
}

}  // namespace

SequenceBatch read_sequences(const Dataset& dataset, std::span<const EventRange> sequences,
                             const std::vector<std::int64_t>& features, UnknownIds unknown_ids) {
  SequenceBatch batch;
  batch.sequence_offsets.push_back(0);
  for (const EventRange& sequence : sequences) {
    batch.sequence_offsets.push_back(batch.sequence_offsets.back() + sequence.end - sequence.begin);
  }
  FeatureBags bags;
  for (const std::int64_t feature : features) {
    FeatureBags& column = batch.features.emplace_back();
    column.offsets.push_back(0);
    for (const EventRange& sequence : sequences) {
      dataset.read_feature(feature, sequence.begin, sequence.end, bags);
      if (unknown_ids == UnknownIds::kError) dataset.check_ids(feature, sequence.begin, bags);
      append(bags, column);
    }
  }
  return batch;
}

SequenceReader::SequenceReader(const Dataset& dataset, const Split& split, ReaderOptions options)
    : dataset_(dataset), split_(split), options_(std::move(options)) {
  if (options_.batch_size < 1 || options_.max_length < 1) {
    throw usage_error("batch size and maximum length have to be 1 or more");
  }
  const BatchShares& shares = options_.shares;
  check(0 <= shares.begin && shares.begin <= shares.end && shares.end <= shares.count,
        "the reader's shares are none of the batch's");
  window_offsets_ = count_windows(dataset.user_offsets(), split, options_);
  if (num_windows() == 0) {
    throw usage_error(
        "nothing to train on (no user has two events or more outside of what the split holds out): "
        "choose another split or more data");
  }
}

std::int64_t SequenceReader::batches_per_epoch() const {
  return (num_windows() + options_.batch_size - 1) / options_.batch_size;
}

SequenceBatch SequenceReader::read(std::int64_t step) const {
  const ProfilerRange range("read");
  const std::int64_t epoch = step / batches_per_epoch();
  const std::int64_t index = step % batches_per_epoch();
  const std::int64_t first = index * options_.batch_size;
  const std::int64_t size = std::min(options_.batch_size, num_windows() - first);
  const BatchShares& shares = options_.shares;
  const auto begin_of = [&](std::int64_t share) { return first + share * size / shares.count; };
  const std::int64_t begin = begin_of(shares.begin), end = begin_of(shares.end);

  std::vector<std::int64_t> sample_ids, share_offsets;
  std::vector<EventRange> sequences;
  for (std::int64_t position = begin; position < end; ++position) {
    sample_ids.push_back(
        permuted_index(position, num_windows(), options_.seed, static_cast<std::uint32_t>(epoch)));
    sequences.push_back(window(sample_ids.back()));
  }
  for (std::int64_t share = shares.begin; share <= shares.end; ++share) {
    share_offsets.push_back(begin_of(share) - begin);
  }
  SequenceBatch batch =
      read_sequences(dataset_, sequences, options_.features, options_.unknown_ids);
  batch.epoch = epoch;
  batch.index = index;
  batch.sample_ids = std::move(sample_ids);
  batch.share_offsets = std::move(share_offsets);
  return batch;
}

/// Window 0 of a user is the latest one.
EventRange SequenceReader::window(std::int64_t id) const {
  const std::int64_t user =
      std::ranges::upper_bound(window_offsets_, id) - window_offsets_.begin() - 1;
  const std::int64_t end =
      split_.train_end[user] - (id - window_offsets_[user]) * options_.max_length;
  return {std::max(dataset_.user_offsets()[user], end - options_.max_length - 1), end};
}

}  // namespace serrate
