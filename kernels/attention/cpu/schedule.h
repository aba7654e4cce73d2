#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/attention/cpu/split.h"
#include "kernels/attention/view.h"

namespace serrate {

/// Queries and keys of one sequence, counted from its first, in consecutive heads.
struct AttentionTask {
  std::int64_t sequence, head, num_heads;
  std::int64_t query_begin, query_end, key_begin, key_end;
  std::int64_t chunk, num_chunks;  ///< of the sequence's keys
  std::int64_t partials;           ///< where those of the sequence begin
  bool few_rows;
};

/// The tasks of a batch's forward, in the order in which threads take them: longest sequences
/// first, so that the last one to finish is a short one.
class AttentionSchedule {
 public:
  /// A sequence without queries has a task for every head, too.
  AttentionSchedule(const AttentionView& args, int num_threads);

  std::int64_t num_tasks() const { return tasks_before_.back(); }
  std::int64_t num_partials() const { return partials_before_.back(); }
  /// `args` is the batch that it was made for.
  AttentionTask task(const AttentionView& args, std::int64_t index) const;
  /// The sequences in that order.
  std::span<const std::int64_t> sequences() const { return sequences_; }

 private:
  std::vector<std::int64_t> sequences_;
  std::vector<std::int64_t> tasks_before_;     // [batch_size + 1], in the order of sequences_
  std::vector<std::int64_t> partials_before_;  // likewise
};

}  // namespace serrate
