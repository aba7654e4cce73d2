// k steps on W GPUs equal k unsharded steps on the CPU.

#include <gtest/gtest.h>

#include <array>
#include <tuple>

#include "tests/embedding/equivalence.h"
#include "tests/support/devices.h"

namespace serrate {
namespace {

using Case = std::tuple<SparseOptimizer, ShardingType>;

std::string case_name(const testing::TestParamInfo<Case>& info) {
  return to_string(std::get<SparseOptimizer>(info.param)) + "_" +
         to_string(std::get<ShardingType>(info.param));
}

class DeviceEquivalence : public testing::TestWithParam<Case> {};

// Three steps: two with weights, and one without. Of each type, on each number of ranks, bags that
// several ranks have parts of are pooled in both ways: each under one optimizer.
TEST_P(DeviceEquivalence, StepsEqualUnshardedStepsOnTheCpu) {
  using enum SparseOptimizer;
  const auto [optimizer, type] = GetParam();
  Workload workload = make_workload(optimizer);
  workload.num_steps = 3;
  workload.bags_per_feature = 10;
  const auto unsharded = assemble(workload, train_thread_ranks(workload, unsharded_plan(workload)));
  const bool is_outer = optimizer == kSgd || optimizer == kAdagrad;
  for (const int world_size : is_outer ? std::array{1, 4} : std::array{2, 3}) {
    SCOPED_TRACE(world_size);
    const bool in_id_order = (optimizer == kSgd || optimizer == kAdam) == (world_size % 2 == 1);
    workload.split_bags = in_id_order ? SplitBags::kIdOrder : SplitBags::kPartialSums;
    const int ranks_per_node = !needs_nodes(type) ? 0 : world_size == 4 ? 2 : 1;
    const ShardingPlan plan = uniform_plan(workload, type, world_size, ranks_per_node);
    for (const Device device : test_devices()) {
      expect_close(assemble(workload, train_thread_ranks(workload, plan, 1, device)), unsharded);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Types, DeviceEquivalence,
    testing::Combine(testing::Values(SparseOptimizer::kSgd, SparseOptimizer::kAdagrad,
                                     SparseOptimizer::kRowWiseAdagrad, SparseOptimizer::kAdam),
                     testing::Values(ShardingType::kDataParallel, ShardingType::kTableWise,
                                     ShardingType::kRowWise, ShardingType::kColumnWise,
                                     ShardingType::kTableRowWise, ShardingType::kTableColumnWise,
                                     ShardingType::kGrid)),
    case_name);

class DeviceRounding : public testing::TestWithParam<Case> {};

TEST_P(DeviceRounding, TablesOf16BitsAreThoseOfFloat32ButForRoundings) {
  const auto [optimizer, type] = GetParam();
  Workload workload = rounded_workload(optimizer);
  workload.num_steps = 3;
  workload.bags_per_feature = 10;
  const Workload exact = in_float32(workload);
  const auto largest = largest_weights(exact, [](const Workload& w) {
    return assemble(w, train_thread_ranks(w, unsharded_plan(w)));
  });
  const int world_size = needs_nodes(type) ? 4 : 3, ranks_per_node = needs_nodes(type) ? 2 : 0;
  const ShardingPlan plan = uniform_plan(workload, type, world_size, ranks_per_node);
  for (const Device device : test_devices()) {
    const auto train = [&](const Workload& w) {
      return assemble(w, train_thread_ranks(w, plan, 1, device));
    };
    expect_within_roundings(workload, train(workload), train(exact), largest);
  }
}

INSTANTIATE_TEST_SUITE_P(Types, DeviceRounding,
                         testing::Values(Case{SparseOptimizer::kSgd, ShardingType::kDataParallel},
                                         Case{SparseOptimizer::kAdagrad, ShardingType::kRowWise},
                                         Case{SparseOptimizer::kRowWiseAdagrad,
                                              ShardingType::kColumnWise},
                                         Case{SparseOptimizer::kAdam, ShardingType::kGrid}),
                         case_name);

}  // namespace
}  // namespace serrate
