#pragma once

#include <cstdint>
#include <vector>

#include "serrate/kernels/attention.h"

namespace serrate {

/// Queries [query_begin, query_end) of one sequence, counted from its first, in one head.
struct AttentionTask {
  std::int64_t sequence, head, query_begin, query_end;
};

/// The tasks of a jagged batch, in the order in which threads take them: longest sequences first,
/// so that the last one to finish is a short one. Memory: two integers a sequence.
class AttentionSchedule {
 public:
  /// Throws Error if the offsets fall or lse is too short for them. Sequences are cut after every
  /// `tiles_per_task` tiles of queries; one without queries is a task too.
  AttentionSchedule(const AttentionForward& args, std::int64_t tiles_per_task, int num_threads);

  std::int64_t num_queries() const { return query_offsets_.back() - query_offsets_.front(); }
  std::int64_t num_tasks() const { return tasks_before_.back(); }
  AttentionTask task(std::int64_t index) const;

 private:
  std::int64_t queries_per_task(std::int64_t sequence) const;

  std::span<const std::int64_t> query_offsets_;
  std::int64_t num_heads_, tiles_per_task_;
  std::vector<std::int64_t> sequences_;     // in order of work
  std::vector<std::int64_t> tasks_before_;  // [batch_size + 1], in the order of sequences_
};

}  // namespace serrate
