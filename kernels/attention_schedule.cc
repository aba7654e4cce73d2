#include "kernels/attention_schedule.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "kernels/attention_batch.h"
#include "kernels/attention_mask.h"

namespace serrate {

AttentionSchedule::AttentionSchedule(const AttentionForward& args, std::int64_t num_heads,
                                     std::int64_t tiles_per_task, int num_threads)
    : args_(args),
      num_heads_(num_heads),
      tiles_per_task_(tiles_per_task),
      sequences_(batch_size_of(args)),
      tasks_before_(sequences_.size() + 1, 0) {
  std::iota(sequences_.begin(), sequences_.end(), 0);
  if (num_threads > 1) {
    const auto work = [&](std::int64_t s) {
      return queries_of(args, s).count * num_keys_of(args, s);
    };
    std::sort(sequences_.begin(), sequences_.end(), [&](std::int64_t a, std::int64_t b) {
      return std::pair(work(b), a) < std::pair(work(a), b);
    });
  }
  for (std::size_t i = 0; i < sequences_.size(); ++i) {
    const std::int64_t queries = queries_of(args, sequences_[i]).count;
    const std::int64_t tasks_per_head =
        queries == 0 ? 1 : (queries - 1) / queries_per_task(queries) + 1;
    tasks_before_[i + 1] = tasks_before_[i] + num_heads * tasks_per_head;
  }
}

std::int64_t AttentionSchedule::queries_per_task(std::int64_t num_queries) const {
  return std::min(tiles_per_task_, num_queries / kMaskBlock + 1) * attention_tile(num_queries);
}

AttentionTask AttentionSchedule::task(std::int64_t index) const {
  const auto after = std::upper_bound(tasks_before_.begin(), tasks_before_.end(), index);
  const std::int64_t i = after - tasks_before_.begin() - 1;
  const std::int64_t queries = queries_of(args_, sequences_[i]).count;
  const std::int64_t tasks_per_head = (tasks_before_[i + 1] - tasks_before_[i]) / num_heads_;
  const std::int64_t rank = index - tasks_before_[i];
  const std::int64_t begin = (rank % tasks_per_head) * queries_per_task(queries);
  return {sequences_[i], rank / tasks_per_head, begin,
          std::min(begin + queries_per_task(queries), queries)};
}

}  // namespace serrate
