#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "serrate/training_windows.h"
#include "src/data/dataset.h"
#include "src/data/split.h"

namespace serrate {

/// A global batch is cut into `count` shares by sample, share v being samples [v, v + 1) * size /
/// count. A rank works on shares [begin, end).
struct BatchShares {
  std::int64_t count = 1;
  std::int64_t begin = 0, end = 1;
};

struct ReaderOptions {
  std::int64_t batch_size = 128;  ///< sequences per step of all ranks together
  std::int64_t max_length = 200;  ///< input events; a window has one more, for the last target
  BatchShares shares;             ///< of this rank
  std::uint64_t seed = 1;
  TrainingWindows windows = TrainingWindows::kAll;
  std::vector<std::int64_t> features = {0};  ///< positions in Dataset::features()
  UnknownIds unknown_ids = UnknownIds::kError;
};

/// Events [begin, end) of one user.
struct EventRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

/// The sequences of one rank in one step; may be none.
struct SequenceBatch {
  std::int64_t epoch = 0;
  std::int64_t index = 0;                      ///< of the step in its epoch
  std::vector<std::int64_t> sample_ids;        ///< [n]: the windows' numbers, the same in any epoch
  std::vector<std::int64_t> sequence_offsets;  ///< [n + 1], in events, from 0
  std::vector<std::int64_t> share_offsets;     ///< [shares + 1] in sequences; empty: one share
  std::vector<FeatureBags> features;           ///< as asked for, over all events of the batch

  std::int64_t num_sequences() const {
    return static_cast<std::int64_t>(sequence_offsets.size()) - 1;
  }
};

/// Reads sequences from the file, e.g. the histories to evaluate; sample_ids are left empty.
SequenceBatch read_sequences(const Dataset& dataset, std::span<const EventRange> sequences,
                             const std::vector<std::int64_t>& features, UnknownIds unknown_ids);

/// The batches of a training. Every epoch goes through all windows in an order that depends on
/// seed and epoch alone; step s of it takes windows [s * batch_size, (s + 1) * batch_size) and
/// a rank a contiguous run of those, so the ranks' batches in order are the one batch of an
/// unsharded run. The last batch of an epoch is smaller. The dataset and the split have to outlive
/// the reader, which keeps one offset per user.
class SequenceReader {
 public:
  /// Throws Error (usage) when an option is out of range or nothing is left to train on.
  SequenceReader(const Dataset& dataset, const Split& split, ReaderOptions options);

  std::int64_t num_windows() const { return window_offsets_.back(); }
  std::int64_t batches_per_epoch() const;
  /// The batch of a step, counted over all epochs.
  SequenceBatch read(std::int64_t step) const;

 private:
  EventRange window(std::int64_t id) const;

  const Dataset& dataset_;
  const Split& split_;
  ReaderOptions options_;
  std::vector<std::int64_t> window_offsets_;  // [num_users + 1]: numbers of a user's windows
};

}  // namespace serrate
