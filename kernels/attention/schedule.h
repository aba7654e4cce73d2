#pragma once

#include <cstdint>
#include <vector>

#include "kernels/attention/split.h"
#include "serrate/kernels/attention.h"

namespace serrate {

/// Queries and keys of one sequence, counted from its first, in consecutive heads.
struct AttentionTask {
  std::int64_t sequence, head, num_heads;
  std::int64_t query_begin, query_end, key_begin, key_end;
  std::int64_t chunk, num_chunks;  ///< of the sequence's keys
  std::int64_t partials;           ///< where those of the sequence begin
  bool few_rows;
};

/// The tasks of a jagged batch, in the order in which threads take them: longest sequences first,
/// so that the last one to finish is a short one. Memory: three integers a sequence.
class AttentionSchedule {
 public:
  using SplitOf = AttentionSplit (*)(const AttentionForward& args, std::int64_t sequence);

  /// A sequence without queries has a task for each of `num_heads` heads, too.
  AttentionSchedule(const AttentionForward& args, std::int64_t num_heads, SplitOf split_of,
                    int num_threads);

  std::int64_t num_tasks() const { return tasks_before_.back(); }
  std::int64_t num_partials() const { return partials_before_.back(); }
  AttentionTask task(std::int64_t index) const;

 private:
  const AttentionForward& args_;
  SplitOf split_of_;
  std::vector<std::int64_t> sequences_;        // in order of work
  std::vector<std::int64_t> tasks_before_;     // [batch_size + 1], in the order of sequences_
  std::vector<std::int64_t> partials_before_;  // likewise
};

}  // namespace serrate
