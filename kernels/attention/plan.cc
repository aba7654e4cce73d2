#include "serrate/kernels/attention_plan.h"

#include <utility>

#include "kernels/attention/cpu/plan.h"
#include "kernels/attention/view.h"
#include "kernels/cpu_only.h"

namespace serrate {

AttentionPlanKey plan_key_of(const AttentionForward& args) {
  const auto* columns = std::get_if<ColumnMask>(&args.mask);
  return {.query_offsets = args.query_offsets.device_data(),
          .key_offsets = args.key_offsets.device_data(),
          .column_ranges = columns ? columns->ranges.device_data() : nullptr,
          .num_offsets = args.key_offsets.size(),
          .mask = args.mask.index(),
          .num_shared_queries = args.num_shared_queries,
          .num_heads = args.num_heads,
          .num_key_heads = num_key_heads_of(args),
          .head_dim = args.head_dim,
          .heads_are_alike = args.bias.data.empty() && args.position_table.values.empty() &&
                             args.time_table.values.empty() && args.dropout.rate == 0};
}

AttentionPlan::AttentionPlan() = default;
AttentionPlan::AttentionPlan(const AttentionPlanKey& key) : key_(key) {}
AttentionPlan::AttentionPlan(const AttentionPlanKey& key,
                             std::unique_ptr<const CpuAttentionPlan> on_cpu)
    : key_(key), on_cpu_(std::move(on_cpu)) {}
AttentionPlan::AttentionPlan(AttentionPlan&&) noexcept = default;
AttentionPlan& AttentionPlan::operator=(AttentionPlan&&) noexcept = default;
AttentionPlan::~AttentionPlan() = default;

std::int64_t AttentionPlan::num_partials() const {
  return on_cpu_ ? on_cpu_->schedule.num_partials() : 0;
}

}  // namespace serrate
