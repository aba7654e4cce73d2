#include "src/run/planner_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "sharding/estimate/zipf.h"
#include "sharding/files/quantity.h"
#include "sharding/plan/shard_grid.h"
#include "src/model/model_bytes.h"
#include "src/train/model_state.h"

namespace serrate {
namespace {

constexpr std::int64_t kBlocks = 16;
constexpr std::int64_t kEventsOfBlock = 1 << 16;
constexpr double kLargestExponent = 4;

// What the runtime has.
constexpr ShardingType kTypes[] = {ShardingType::kDataParallel, ShardingType::kTableWise,
                                   ShardingType::kRowWise,      ShardingType::kColumnWise,
                                   ShardingType::kTableRowWise, ShardingType::kTableColumnWise,
                                   ShardingType::kGrid};
constexpr std::int64_t kLeastRowBytes = 64;  // of a column shard: a cache line

// What some of a feature's events look like.
struct Sample {
  double ids_per_event = 0;
  double zipf_exponent = 0;
};

// The exponent at which as many draws find as many different ids.
double fit_exponent(double draws, double distinct, double num_rows) {
  double low = 0, high = kLargestExponent;
  if (expected_distinct(draws, num_rows, low) <= distinct) return low;
  for (int i = 0; i < 20; ++i) {
    const double middle = (low + high) / 2;
    (expected_distinct(draws, num_rows, middle) > distinct ? low : high) = middle;
  }
  return high;
}

Sample sample_feature(const Dataset& dataset, std::int64_t feature) {
  const std::int64_t num_events = dataset.num_events();
  std::vector<std::int64_t> ids;
  FeatureBags bags;
  std::int64_t events = 0;
  for (std::int64_t block = 0; block < kBlocks; ++block) {
    const std::int64_t begin = num_events * block / kBlocks;
    const std::int64_t end = num_events * (block + 1) / kBlocks;
    dataset.read_feature(feature, begin, std::min(end, begin + kEventsOfBlock), bags);
    ids.insert(ids.end(), bags.values.begin(), bags.values.end());
    events += std::ssize(bags.offsets) - 1;
  }
  if (ids.empty()) return {};
  const auto draws = static_cast<double>(ids.size());
  std::ranges::sort(ids);
  const auto distinct = static_cast<double>(std::ranges::unique(ids).begin() - ids.begin());
  const auto num_rows = static_cast<double>(dataset.features()[feature].vocabulary_size);
  return {draws / static_cast<double>(events), fit_exponent(draws, distinct, num_rows)};
}

// Inputs of an average window: every event that is trained on but a user's first is a target once.
double mean_tokens(const Dataset& dataset, const Split& split, const TrainOptions& options) {
  const auto& offsets = dataset.user_offsets();
  const std::int64_t most = options.model.max_length;
  std::int64_t tokens = 0, windows = 0;
  for (std::size_t user = 0; user + 1 < offsets.size(); ++user) {
    const std::int64_t targets =
        std::max<std::int64_t>(split.train_end[user] - offsets[user] - 1, 0);
    const bool latest = options.windows == TrainingWindows::kLatest;
    tokens += latest ? std::min(targets, most) : targets;
    windows += latest ? std::min<std::int64_t>(targets, 1) : (targets + most - 1) / most;
  }
  return windows > 0 ? static_cast<double>(tokens) / static_cast<double>(windows) : 0;
}

}  // namespace

PlannerModel planner_model(const Dataset& dataset, const Split& split, const TrainOptions& options,
                           int world_size) {
  PlannerModel model;
  model.batch_size = (options.batch_size + world_size - 1) / world_size;
  const double tokens = mean_tokens(dataset, split, options);
  const std::int64_t negatives = options.negatives > 0 ? options.negatives : dataset.num_items();
  for (const EmbeddingTable& table : tables_of(dataset, options)) {
    const Sample sample = sample_feature(dataset, dataset.feature_index(table.name));
    PlannerTable& planned = model.tables.emplace_back();
    planned.name = table.name;
    planned.num_rows = table.num_rows;
    planned.dim = table.dim;
    planned.bytes_per_element = size_of(table.data_type);
    planned.features = {
        {.name = table.name, .pooling_factor = sample.ids_per_event, .num_poolings = tokens}};
    planned.optimizer = options.sparse_optimizer.type;
    planned.zipf_exponent = sample.zipf_exponent;
    planned.sharding_types.assign(std::begin(kTypes), std::end(kTypes));
    planned.kernels = {ComputeKernel::kDense, ComputeKernel::kFused};
    planned.min_columns = kLeastRowBytes / planned.bytes_per_element;
  }
  // Targets, and this rank's part of the negatives.
  auto& item_features = model.tables.front().features;
  item_features.push_back({.name = kTargetFeature, .num_poolings = tokens});
  item_features.push_back(
      {.name = kNegativeFeature, .batch_size = (negatives + world_size - 1) / world_size});
  model.dense_bytes = parameter_bytes(options.model);
  if (model.dense_bytes > kMostPlannedBytes) {
    throw usage_error(fmt::format(
        "--dim, --blocks, --feed-forward and --max-length: the dense weights would take {}; the "
        "planner takes {} at most",
        format_bytes(model.dense_bytes), format_bytes(kMostPlannedBytes)));
  }
  return model;
}

PlannerModel exchanged_model(PlannerModel model, const ShardingPlan& plan,
                             const TrainOptions& options) {
  if (!options.reproducible) return model;
  for (PlannerTable& table : model.tables) {
    if (shard_grid(sharding_of(plan, table.name)).num_row_blocks() > 1) table.pooled = false;
  }
  return model;
}

}  // namespace serrate
