#include "serrate/kernels/attention_plan.h"

#include <cstddef>
#include <utility>
#include <variant>

#include "kernels/attention/cpu/plan.h"
#include "kernels/attention/cuda/work_list.h"
#include "kernels/attention/view.h"

namespace serrate {

namespace {

struct MaskArray {
  const void* data = nullptr;
  std::size_t size = 0;

  MaskArray() = default;
  template <typename T>
  explicit MaskArray(DeviceSpan<T> values) : data(values.device_data()), size(values.size()) {}
};

struct ArrayOf {
  MaskArray operator()(const FullMask&) const { return {}; }
  MaskArray operator()(const WindowMask&) const { return {}; }
  MaskArray operator()(const PrefixMask& mask) const { return MaskArray(mask.prefix_lengths); }
  MaskArray operator()(const DocumentMask& mask) const { return MaskArray(mask.document_offsets); }
  MaskArray operator()(const HstuMask& mask) const { return MaskArray(mask.num_targets); }
  MaskArray operator()(const RowMask& mask) const { return MaskArray(mask.ranges); }
  MaskArray operator()(const ColumnMask& mask) const { return MaskArray(mask.ranges); }
  MaskArray operator()(const BlockMask& mask) const { return MaskArray(mask.masks); }
};

}  // namespace

AttentionPlanKey plan_key_of(const AttentionForward& args) {
  const MaskArray mask = std::visit(ArrayOf{}, args.mask);
  return {.query_offsets = args.query_offsets.device_data(),
          .key_offsets = args.key_offsets.device_data(),
          .num_offsets = args.key_offsets.size(),
          .mask = args.mask.index(),
          .mask_array = mask.data,
          .mask_array_size = mask.size,
          .num_shared_queries = args.num_shared_queries,
          .num_heads = args.num_heads,
          .num_key_heads = num_key_heads_of(args),
          .head_dim = args.head_dim,
          .in_tf32 = args.precision == Precision::kTf32,
          .heads_are_alike = args.bias.data.empty() && args.position_table.values.empty() &&
                             args.time_table.values.empty() && args.dropout.rate == 0};
}

AttentionPlan::AttentionPlan() = default;
AttentionPlan::AttentionPlan(const AttentionPlanKey& key) : key_(key) {}
AttentionPlan::AttentionPlan(const AttentionPlanKey& key,
                             std::unique_ptr<const CpuAttentionPlan> on_cpu)
    : key_(key), on_cpu_(std::move(on_cpu)) {}
AttentionPlan::AttentionPlan(const AttentionPlanKey& key,
                             std::unique_ptr<const CudaAttentionPlan> on_cuda)
    : key_(key), on_cuda_(std::move(on_cuda)) {}
AttentionPlan::AttentionPlan(AttentionPlan&&) noexcept = default;
AttentionPlan& AttentionPlan::operator=(AttentionPlan&&) noexcept = default;
AttentionPlan::~AttentionPlan() = default;

std::int64_t AttentionPlan::num_partials() const {
  if (on_cuda_) return on_cuda_->num_partials;
  return on_cpu_ ? on_cpu_->schedule.num_partials() : 0;
}

}  // namespace serrate
