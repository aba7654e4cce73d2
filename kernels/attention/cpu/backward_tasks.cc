// How the backward of attention is shared among threads, and what it needs besides its results.
#include "kernels/attention/cpu/backward_tasks.h"

#include <omp.h>

#include <algorithm>
#include <limits>
#include <vector>

namespace serrate {
namespace {

BackwardTask whole_task(const AttentionView& args, std::int64_t sequence, std::int64_t key_head) {
  return {
      sequence, key_head, {0, queries_of(args, sequence).count}, {0, num_keys_of(args, sequence)},
      true,     true};
}

// Whether tasks that share no query write different gradients of biases.
bool queries_are_apart(const AttentionBackwardView& args) {
  return args.d_position_table.empty() && args.d_time_table.empty() &&
         (!args.d_bias || args.forward.bias.query_stride != 0);
}

// Calls f for about `parts` ranges of [0, length) that begin where tiles do.
template <typename F>
void cut(std::int64_t length, std::int64_t parts, F&& f) {
  const std::int64_t tile = attention_tile(length), tiles = ceil_div(length, tile);
  const std::int64_t step = std::max<std::int64_t>(tiles / std::max<std::int64_t>(parts, 1), 1);
  for (std::int64_t begin = 0; begin < length; begin += step * tile) {
    f(MaskRange{begin, std::min(begin + step * tile, length)});
  }
}

// The sequences that are more than a thread's fair share of the work in each of their heads.
class LargeSequences {
 public:
  LargeSequences(const AttentionBackwardView& args, const CpuAttentionPlan& plan, int num_threads)
      : args_(args.forward), sequences_(plan.schedule.sequences()) {
    const auto heads = static_cast<double>(args_.num_key_heads);
    fair_share_ = num_threads > 1 && queries_are_apart(args)
                      ? heads * plan.work / num_threads
                      : std::numeric_limits<double>::infinity();
  }
  bool contain(std::int64_t sequence) const { return work_of(args_, sequence) > fair_share_; }

  // Their parts: several a thread, as parts under a mask differ in work.
  std::vector<BackwardTask> parts(bool yield_d_q) const {
    std::vector<BackwardTask> tasks;
    for (const std::int64_t s : sequences_) {
      if (!contain(s)) continue;
      const auto parts = static_cast<std::int64_t>(kPartsAThread * work_of(args_, s) / fair_share_);
      for (std::int64_t head = 0; head < args_.num_key_heads; ++head) {
        BackwardTask task = whole_task(args_, s, head);
        task.yields_d_q = false;
        cut(task.keys.end, parts,
            [&](const MaskRange& keys) { tasks.push_back(task), tasks.back().keys = keys; });
        if (!yield_d_q) continue;
        task.yields_d_q = true, task.yields_d_keys = false;
        cut(task.queries.end, parts, [&](const MaskRange& queries) {
          tasks.push_back(task), tasks.back().queries = queries;
        });
      }
    }
    return tasks;
  }

 private:
  static constexpr double kPartsAThread = 4;

  const AttentionView& args_;
  std::span<const std::int64_t> sequences_;
  double fair_share_;
};

// Sequences and heads that add to the same bias keep to their order: one after the other, whole or,
// if threads would wait, in parts that share no query. Those leave d_k and d_v to be done: true.
bool for_each_of_shared_bias(
    const AttentionBackwardView& args, const CpuAttentionPlan& plan, const Stream& stream,
    const std::function<void(const BackwardTask&, const BackwardTask*, int)>& f) {
  const AttentionView& forward = args.forward;
  const std::int64_t batch_size = batch_size_of(forward), heads = forward.num_key_heads;
  const std::int64_t sequences = forward.bias.sequence_stride == 0 ? batch_size : 1;
  const std::int64_t heads_together = forward.bias.head_stride == 0 ? heads : 1;
  const std::int64_t groups_of_heads = heads / heads_together;
  const std::int64_t groups = batch_size / std::max<std::int64_t>(sequences, 1) * groups_of_heads;
  const std::int64_t longest = std::max<std::int64_t>(plan.longest_queries, 1);
  const bool in_parts = groups < stream.num_threads() && queries_are_apart(args);
  const std::int64_t queries = in_parts ? kTileQueries : longest;
#pragma omp parallel for collapse(2) schedule(dynamic) num_threads(stream.num_threads())
  for (std::int64_t begin = 0; begin < longest; begin += queries) {
    for (std::int64_t g = 0; g < groups; ++g) {
      const std::int64_t sequence = g / groups_of_heads, head = g % groups_of_heads;
      for (std::int64_t s = sequence; s < sequence + sequences; ++s) {
        for (std::int64_t h = head; h < head + heads_together; ++h) {
          BackwardTask task = whole_task(forward, s, h);
          task.queries = {begin, std::min(begin + queries, task.queries.end)};
          task.yields_d_keys = !in_parts;
          f(task, nullptr, omp_get_thread_num());
        }
      }
    }
  }
  return in_parts;
}

}  // namespace

void for_each_backward_task(
    const AttentionBackwardView& args, const CpuAttentionPlan& plan, const Stream& stream,
    const std::function<void(const BackwardTask&, const BackwardTask*, int)>& f) {
  const AttentionView& forward = args.forward;
  bool yields_d_q = true;
  if (args.d_bias && (forward.bias.sequence_stride == 0 || forward.bias.head_stride == 0)) {
    if (!for_each_of_shared_bias(args, plan, stream, f)) return;
    yields_d_q = false;
  }
  const LargeSequences large(args, plan, stream.num_threads());
  const std::vector<BackwardTask> parts = large.parts(yields_d_q);
  const auto whole = [&](std::int64_t index) {  // longest sequences first
    BackwardTask task =
        whole_task(forward, plan.schedule.sequences()[index / forward.num_key_heads],
                   index % forward.num_key_heads);
    task.yields_d_q = yields_d_q;
    return task;
  };
  const std::int64_t num_parts = std::ssize(parts);
  const std::int64_t num_tasks = num_parts + batch_size_of(forward) * forward.num_key_heads;
#pragma omp parallel for schedule(dynamic) num_threads(stream.num_threads())
  for (std::int64_t t = 0; t < num_tasks; ++t) {
    if (t < num_parts) {
      f(parts[t], nullptr, omp_get_thread_num());
      continue;
    }
    const BackwardTask task = whole(t - num_parts);
    if (large.contain(task.sequence)) continue;
    const std::int64_t later = t + stream.num_threads();
    BackwardTask next{};
    if (later < num_tasks) next = whole(later - num_parts);
    f(task, later < num_tasks ? &next : nullptr, omp_get_thread_num());
  }
}

BackwardWorkspace backward_workspace(const AttentionBackwardView& args) {
  const AttentionView& forward = args.forward;
  const std::int64_t heads = batch_size_of(forward) * forward.num_heads;
  const std::int64_t keys = (forward.key_offsets.back() - forward.key_offsets.front()) *
                            forward.num_key_heads * forward.head_dim;
  return {
      .d_q = heads * forward.num_shared_queries * forward.head_dim,
      .d_k = args.d_k.type == DataType::kFloat32 ? 0 : keys,
      .d_v = args.d_v.type == DataType::kFloat32 ? 0 : keys,
      .d_position = args.d_position_table.empty() ? 0 : heads * num_entries(forward.position_table),
      .d_time = args.d_time_table.empty() ? 0 : heads * num_entries(forward.time_table)};
}

BackwardCall backward_call(float* workspace, const AttentionBackwardView& args,
                           const AttentionTiles& tiles) {
  const AttentionView& forward = args.forward;
  const BackwardWorkspace sizes = backward_workspace(args);
  const auto take = [&](std::int64_t size) {
    float* taken = size == 0 ? nullptr : workspace;
    workspace += size;
    return taken;
  };
  const auto heads_at = [&](float* data, std::int64_t first_token, std::int64_t heads) {
    const std::int64_t stride = heads * forward.head_dim;
    return DeviceHeads<float>{data - first_token * stride, stride, forward.head_dim};
  };
  const auto key_sums = [&](const OutputHeads& result, std::int64_t size) {
    return size == 0 ? result
                     : OutputHeads(heads_at(take(size), forward.key_offsets.front(),
                                            forward.num_key_heads));
  };
  const OutputHeads d_q =
      sizes.d_q == 0 ? args.d_q : OutputHeads(heads_at(take(sizes.d_q), 0, forward.num_heads));
  return {.args = args,
          .tiles = tiles,
          .d_q = d_q,
          .d_k = key_sums(args.d_k, sizes.d_k),
          .d_v = key_sums(args.d_v, sizes.d_v),
          .d_position = take(sizes.d_position),
          .d_time = take(sizes.d_time)};
}

void sum_shares(const AttentionView& args, const float* shares, std::span<float> gradient,
                const TableView& table, const Stream& stream) {
  const std::int64_t entries = num_entries(table);
  const std::int64_t heads = std::ssize(gradient) / entries;  // 1 or num_heads
  const std::int64_t rows = batch_size_of(args) * args.num_heads;
#pragma omp parallel for num_threads(stream.num_threads()) schedule(static)
  for (std::int64_t i = 0; i < std::ssize(gradient); ++i) {
    for (std::int64_t row = i / entries; row < rows; row += heads) {
      gradient[i] += shares[row * entries + i % entries];
    }
  }
}

}  // namespace serrate
