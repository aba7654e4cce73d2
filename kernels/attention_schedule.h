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
  /// A task is at most `tiles_per_task` tiles of a sequence's queries in one of `num_heads` heads; a
  /// sequence without queries has one a head, too.
  AttentionSchedule(const AttentionForward& args, std::int64_t num_heads,
                    std::int64_t tiles_per_task, int num_threads);

  std::int64_t num_tasks() const { return tasks_before_.back(); }
  AttentionTask task(std::int64_t index) const;

 private:
  std::int64_t queries_per_task(std::int64_t num_queries) const;

  const AttentionForward& args_;
  std::int64_t num_heads_, tiles_per_task_;
  std::vector<std::int64_t> sequences_;     // in order of work
  std::vector<std::int64_t> tasks_before_;  // [batch_size + 1], in the order of sequences_
};

}  // namespace serrate
