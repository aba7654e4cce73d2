#pragma once

#include <cstdint>

#include "kernels/attention/view.h"
#include "serrate/buffer.h"

namespace serrate {

/// Queries and keys of a tile on tensor cores.
inline constexpr int kMmaTile = 64;

/// The order in which kernels on tensor cores take the sequences of a batch, the longest first, in
/// device memory. Those with at most 16 or 32 queries and keys are last: 4 or 2 of their pairs of
/// sequence and head share a tile.
struct WorkList {
  const std::int64_t* counts;  // how many sequences are longer, of up to 32, of up to 16
  const std::int64_t* order;   // [batch_size]
  // [batch_size + 1], by place in the order: tiles of the longer ones, before each and all.
  const std::int64_t *first_query_tile, *first_key_tile;
};

/// What CUDA's kernels know of a batch beforehand; made on the device from lengths alone.
struct CudaAttentionPlan {
  Buffer<std::int64_t> values;
  WorkList list(std::int64_t batch_size) const {
    const std::int64_t *counts = values.device_data(), *order = counts + 3;
    const std::int64_t* first_tile = order + batch_size;
    return {counts, order, first_tile, first_tile + batch_size + 1};
  }
};

CudaAttentionPlan list_work(const AttentionView& args, const Stream& stream);

/// Calls f(WorkList), the one of the call's plan or, without one, of its own.
template <typename F>
void with_work_list(const AttentionForward& args, const Stream& stream, F&& f) {
  const AttentionView view = view_of(args);
  const std::int64_t batch_size = batch_size_of(view);
  if (args.plan && args.plan->on_cuda()) return f(args.plan->on_cuda()->list(batch_size));
  const CudaAttentionPlan plan = list_work(view, stream);
  f(plan.list(batch_size));
}

}  // namespace serrate
