#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "kernels/attention/cpu/plan.h"
#include "kernels/attention/cpu/tiles.h"
#include "kernels/attention/view.h"
#include "serrate/stream.h"

namespace serrate {

/// What the tasks of one call share.
struct BackwardCall {
  const AttentionBackwardView& args;
  const AttentionTiles& tiles;
  OutputHeads d_q;       // a row per query of the batch
  OutputHeads d_k, d_v;  // sums in float32: the results, or workspace where those are not
  // Gradients of the tables, [batch_size, num_heads, entries]; null: none.
  float *d_position, *d_time;
};

/// The pairs of `queries` and `keys`, counted from their sequence's first and cut where tiles
/// begin, in one head of keys; and which gradients they yield: of the queries (and biases), for
/// which `keys` has to be all, or of the keys and values, for which `queries` has to be all.
struct BackwardTask {
  std::int64_t sequence, key_head;
  MaskRange queries, keys;
  bool yields_d_q, yields_d_keys;
};

/// Calls f(task, next, thread) in parallel, where the thread is likely to be given `next` after
/// it (null if that is not known). One task is a sequence in one head of keys, unless threads would
/// wait for it: then it is parts that yield one kind of gradient each. Scores are then computed
/// twice, but every sum keeps its order, so bits do not depend on it.
void for_each_backward_task(
    const AttentionBackwardView& args, const CpuAttentionPlan& plan, const Stream& stream,
    const std::function<void(const BackwardTask&, const BackwardTask*, int)>& f);

/// What a call sums in besides its results, in floats.
struct BackwardWorkspace {
  std::int64_t d_q;       // of shared queries: [batch_size, num_shared_queries, heads, head_dim]
  std::int64_t d_k, d_v;  // that are not float32: [num_key_tokens, key_heads, head_dim]
  std::int64_t d_position, d_time;  // [batch_size, num_heads, entries]
  std::int64_t size() const { return d_q + d_k + d_v + d_position + d_time; }
};

BackwardWorkspace backward_workspace(const AttentionBackwardView& args);

/// The call's view of `workspace`, as large as backward_workspace says.
BackwardCall backward_call(float* workspace, const AttentionBackwardView& args,
                           const AttentionTiles& tiles);

/// gradient += the shares of every sequence and head, in their order.
void sum_shares(const AttentionView& args, const float* shares, std::span<float> gradient,
                const TableView& table, const Stream& stream);

}  // namespace serrate
