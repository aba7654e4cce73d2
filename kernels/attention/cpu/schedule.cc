#include "kernels/attention/cpu/schedule.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace serrate {

namespace {

std::int64_t num_blocks(std::int64_t count, std::int64_t size) {
  return count == 0 ? 1 : ceil_div(count, size);
}

}  // namespace

AttentionSchedule::AttentionSchedule(const AttentionView& args, int num_threads)
    : sequences_(batch_size_of(args)),
      tasks_before_(sequences_.size() + 1, 0),
      partials_before_(sequences_.size() + 1, 0) {
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
    const std::int64_t s = sequences_[i];
    const AttentionSplit split = forward_split(args, s);
    tasks_before_[i + 1] =
        tasks_before_[i] + args.num_heads / split.heads *
                               num_blocks(queries_of(args, s).count, split.queries) *
                               num_blocks(num_keys_of(args, s), split.keys);
    partials_before_[i + 1] = partials_before_[i] + partials_of(args, s, split);
  }
}

AttentionTask AttentionSchedule::task(const AttentionView& args, std::int64_t index) const {
  const auto after = std::upper_bound(tasks_before_.begin(), tasks_before_.end(), index);
  const std::int64_t i = after - tasks_before_.begin() - 1, sequence = sequences_[i];
  const AttentionSplit split = forward_split(args, sequence);
  const std::int64_t queries = queries_of(args, sequence).count;
  const std::int64_t keys = num_keys_of(args, sequence);
  const std::int64_t query_blocks = num_blocks(queries, split.queries);
  const std::int64_t chunks = num_blocks(keys, split.keys);
  const std::int64_t rank = index - tasks_before_[i];
  const std::int64_t query = rank / chunks % query_blocks * split.queries;
  const std::int64_t chunk = rank % chunks, key = chunk * split.keys;
  return {.sequence = sequence,
          .head = rank / (chunks * query_blocks) * split.heads,
          .num_heads = split.heads,
          .query_begin = query,
          .query_end = std::min(query + split.queries, queries),
          .key_begin = key,
          .key_end = std::min(key + split.keys, keys),
          .chunk = chunk,
          .num_chunks = chunks,
          .partials = partials_before_[i],
          .few_rows = split.few_rows};
}

}  // namespace serrate
