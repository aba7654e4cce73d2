#include <fmt/format.h>

#include <array>
#include <utility>

#include "serrate/error.h"
#include "serrate/planner.h"

namespace serrate {
namespace {

constexpr std::array<std::pair<ComputeKernel, const char*>, 4> kKernelNames{{
    {ComputeKernel::kDense, "dense"},
    {ComputeKernel::kFused, "fused"},
    {ComputeKernel::kFusedUvm, "fused_uvm"},
    {ComputeKernel::kFusedUvmCaching, "fused_uvm_caching"},
}};

constexpr std::array<std::pair<PlannerObjective, const char*>, 2> kObjectives{{
    {PlannerObjective::kMaxRank, "max_rank"},
    {PlannerObjective::kCriticalPath, "critical_path"},
}};

constexpr std::array<std::pair<PlannerEstimator, const char*>, 2> kEstimators{{
    {PlannerEstimator::kTorchRec, "torchrec"},
    {PlannerEstimator::kSerrate, "serrate"},
}};

template <typename Table, typename T>
std::string name_in(const Table& table, T value) {
  for (const auto& [known, name] : table) {
    if (known == value) return name;
  }
  return {};
}

}  // namespace

std::string to_string(ComputeKernel kernel) {
  return name_in(kKernelNames, kernel);
}

ComputeKernel compute_kernel_from_string(const std::string& name) {
  for (const auto& [kernel, kernel_name] : kKernelNames) {
    if (name == kernel_name) return kernel;
  }
  throw usage_error(fmt::format(
      "\"{}\" is not a compute kernel (dense, fused, fused_uvm or fused_uvm_caching)", name));
}

std::string to_string(PlannerObjective objective) {
  return name_in(kObjectives, objective);
}

PlannerObjective planner_objective_from_string(const std::string& name) {
  for (const auto& [objective, objective_name] : kObjectives) {
    if (name == objective_name) return objective;
  }
  throw usage_error(fmt::format("\"{}\" is not an objective (max_rank or critical_path)", name));
}

std::string to_string(PlannerEstimator estimator) {
  return name_in(kEstimators, estimator);
}

PlannerEstimator planner_estimator_from_string(const std::string& name) {
  for (const auto& [estimator, estimator_name] : kEstimators) {
    if (name == estimator_name) return estimator;
  }
  throw usage_error(fmt::format("\"{}\" is not an estimator (torchrec or serrate)", name));
}

}  // namespace serrate
