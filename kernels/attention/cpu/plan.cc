#include "kernels/attention/cpu/plan.h"

#include <algorithm>
#include <memory>

#include "kernels/attention/cpu/checks.h"

namespace serrate {

template <>
AttentionPlan plan_attention_on<DeviceType::kCpu>(const AttentionForward& args,
                                                  const Stream& stream) {
  check_host_may_read(stream);
  const AttentionView view = view_of(args);
  check_lengths(view);
  std::int64_t longest_queries = 0, longest_keys = 0;
  double work = 0;
  for (std::int64_t s = 0; s < batch_size_of(view); ++s) {
    longest_queries = std::max(longest_queries, queries_of(view, s).count);
    longest_keys = std::max(longest_keys, num_keys_of(view, s));
    work += work_of(view, s);
  }
  return {plan_key_of(args), std::make_unique<const CpuAttentionPlan>(
                                 AttentionSchedule(view, stream.num_threads()), ColumnHulls(view),
                                 longest_queries, longest_keys, work)};
}

}  // namespace serrate
