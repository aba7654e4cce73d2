#pragma once

#include <cstdint>

#include "kernels/attention/cpu/schedule.h"
#include "kernels/attention/cpu/tiles.h"

namespace serrate {

/// What the CPU's forward and backward know of a batch beforehand.
struct CpuAttentionPlan {
  AttentionSchedule schedule;
  ColumnHulls columns;
  std::int64_t longest_queries, longest_keys;
  double work;  // pairs of a query and a key, seen or not
};

/// The work of a sequence in one head.
inline double work_of(const AttentionView& args, std::int64_t sequence) {
  return static_cast<double>(queries_of(args, sequence).count) *
         static_cast<double>(num_keys_of(args, sequence));
}

}  // namespace serrate
