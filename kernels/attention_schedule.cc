#include "kernels/attention_schedule.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "kernels/attention_mask.h"
#include "serrate/error.h"

namespace serrate {
namespace {

std::int64_t length(std::span<const std::int64_t> offsets, std::int64_t sequence) {
  return offsets[sequence + 1] - offsets[sequence];
}

}  // namespace

AttentionSchedule::AttentionSchedule(const AttentionForward& args, std::int64_t tiles_per_task,
                                     int num_threads)
    : query_offsets_(args.query_offsets),
      num_heads_(args.num_heads),
      tiles_per_task_(tiles_per_task),
      sequences_(args.query_offsets.size() - 1),
      tasks_before_(args.query_offsets.size(), 0) {
  const std::int64_t batch_size = std::ssize(sequences_);
  for (std::int64_t s = 0; s < batch_size; ++s) {
    check(length(args.query_offsets, s) >= 0 && length(args.key_offsets, s) >= 0,
          "attention offsets must not fall");
  }
  check(args.lse.empty() || std::ssize(args.lse) / num_heads_ >= query_offsets_.back(),
        "lse must be [num_heads, num_query_tokens]");
  std::iota(sequences_.begin(), sequences_.end(), 0);
  if (num_threads > 1) {
    const auto work = [&](std::int64_t s) {
      return length(args.query_offsets, s) * length(args.key_offsets, s);
    };
    std::sort(sequences_.begin(), sequences_.end(), [&](std::int64_t a, std::int64_t b) {
      return std::pair(work(b), a) < std::pair(work(a), b);
    });
  }
  for (std::int64_t i = 0; i < batch_size; ++i) {
    const std::int64_t queries = std::max<std::int64_t>(length(query_offsets_, sequences_[i]), 1);
    tasks_before_[i + 1] =
        tasks_before_[i] + num_heads_ * ((queries - 1) / queries_per_task(sequences_[i]) + 1);
  }
}

std::int64_t AttentionSchedule::queries_per_task(std::int64_t sequence) const {
  const std::int64_t queries = length(query_offsets_, sequence);
  return std::min(tiles_per_task_, queries / kMaskBlock + 1) * attention_tile(queries);
}

AttentionTask AttentionSchedule::task(std::int64_t index) const {
  const auto after = std::upper_bound(tasks_before_.begin(), tasks_before_.end(), index);
  const std::int64_t i = after - tasks_before_.begin() - 1;
  const std::int64_t sequence = sequences_[i];
  const std::int64_t tasks_per_head = (tasks_before_[i + 1] - tasks_before_[i]) / num_heads_;
  const std::int64_t rank = index - tasks_before_[i];
  const std::int64_t begin = (rank % tasks_per_head) * queries_per_task(sequence);
  return {sequence, rank / tasks_per_head, begin,
          std::min(begin + queries_per_task(sequence), length(query_offsets_, sequence))};
}

}  // namespace serrate
