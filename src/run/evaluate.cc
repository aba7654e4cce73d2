#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>

#include "comm/agreement.h"
#include "comm/together.h"
#include "serrate/rank_device.h"
#include "serrate/trainer.h"
#include "src/checkpoint/load.h"
#include "src/core/option_json.h"
#include "src/data/sequence_reader.h"
#include "src/data/split.h"
#include "src/evaluate/baselines.h"
#include "src/evaluate/distributed_top_k.h"
#include "src/evaluate/for_each_case.h"
#include "src/evaluate/history_states.h"
#include "src/evaluate/ranking_metrics.h"
#include "src/run/checkpoint.h"
#include "src/run/directory.h"
#include "src/run/options.h"
#include "src/run/plan.h"
#include "src/train/model_state.h"

namespace serrate {
namespace {

/// What is evaluated, on every rank.
struct Evaluation {
  const EvaluateOptions& options;
  TrainOptions run;
  std::optional<Dataset> dataset;
  Split split;
  std::int64_t tokens_at_once = 0;
};

/// This rank's share of a batch of cases, and the latest events of each history.
struct CaseShare {
  std::span<const EvaluationCase> cases;
  SequenceBatch histories;
};

/// Of the history that the model reads.
std::int64_t first_event(const Evaluation& e, const EvaluationCase& c) {
  return std::max(c.history_begin, c.history_end - e.run.model.max_length);
}

/// Takes out the cases that cannot be ranked: those whose target is no item and, where invalid ids
/// are dropped, those of whose history nothing is left. Returns their number.
std::int64_t leave_out_unknown(Evaluation& e) {
  if (e.run.invalid_ids == InvalidIds::kError) return 0;  // an error where they are read
  std::vector<std::int64_t> left_out;                     // users in order
  const auto is_item = [&](std::int64_t id) { return e.dataset->has_item(id); };
  for_each_case(
      *e.dataset, e.split.cases, UnknownIds::kKeep,
      [&](const EvaluationCase& c, std::span<const std::int64_t> history, std::int64_t target) {
        const auto read = history.subspan(first_event(e, c) - c.history_begin);
        const bool is_left =
            e.run.invalid_ids != InvalidIds::kDrop || std::ranges::any_of(read, is_item);
        if (!is_item(target) || !is_left) left_out.push_back(c.user);
      });
  return std::erase_if(e.split.cases, [&](const EvaluationCase& c) {
    return std::ranges::binary_search(left_out, c.user);
  });
}

CaseShare read_share(const Evaluation& e, std::int64_t begin, std::int64_t end, int rank,
                     int world_size) {
  const std::int64_t n = end - begin;
  const std::int64_t first = begin + n * rank / world_size;
  const std::int64_t last = begin + n * (rank + 1) / world_size;
  CaseShare share;
  share.cases = std::span(e.split.cases).subspan(first, last - first);
  std::vector<EventRange> ranges;
  for (const EvaluationCase& c : share.cases) {
    ranges.push_back({first_event(e, c), c.history_end});
  }
  std::vector<std::int64_t> features;
  for (const std::string& name : token_features(*e.dataset, e.run.model)) {
    features.push_back(e.dataset->feature_index(name));
  }
  share.histories = read_sequences(*e.dataset, ranges, features, unknown_ids(e.run.invalid_ids));
  return share;
}

TopKQueries queries_of(const Evaluation& e, const CaseShare& share, const Buffer<float>& states) {
  const auto n = static_cast<std::int64_t>(share.cases.size());
  TopKQueries queries{.queries = states.matrix(n, e.run.model.dim), .excluded = {}};
  std::vector<std::int64_t> items;
  for (const EvaluationCase& c : share.cases) {
    if (e.options.filter_seen) {
      e.dataset->read_items(c.history_begin, c.history_end, items, unknown_ids(e.run.invalid_ids));
      std::ranges::copy_if(items, std::back_inserter(queries.excluded),
                           [&](std::int64_t id) { return e.dataset->has_item(id); });
    }
    if (e.run.invalid_ids == InvalidIds::kOov) queries.excluded.push_back(e.dataset->num_items());
    queries.excluded_offsets.push_back(static_cast<std::int64_t>(queries.excluded.size()));
  }
  return queries;
}

/// The model's rank of every case's target among all items, as far as the largest cutoff.
std::vector<std::int64_t> rank_by_model(const Evaluation& e, TrainState& state) {
  Communicator& communicator = state.communicator;
  const auto names = token_features(*e.dataset, e.run.model);
  const std::int64_t largest =
      *std::max_element(e.options.cutoffs.begin(), e.options.cutoffs.end());
  const std::int64_t k = std::min(largest, e.dataset->num_items());
  const auto num_cases = static_cast<std::int64_t>(e.split.cases.size());
  std::vector<std::int64_t> all_ranks, items;
  for (std::int64_t begin = 0; begin < num_cases; begin += e.options.batch_size) {
    const std::int64_t end = std::min(begin + e.options.batch_size, num_cases);
    CaseShare share;
    std::vector<std::int64_t> targets;
    together(communicator, "read histories", [&] {
      share = read_share(e, begin, end, communicator.rank(), communicator.size());
      for (const EvaluationCase& c : share.cases) {
        e.dataset->read_items(c.target_event, c.target_event + 1, items);
        targets.push_back(items.front());
      }
    });
    BatchShape shape = batch_shape(e.run, e.dataset->num_items());
    shape.micro_batch_tokens = e.tokens_at_once;
    const NextItemBatch batch = make_history_batch(share.histories, names, shape, state.stream);
    const Buffer<float> states = history_states(state, batch);
    const auto best =
        distributed_top_k(state.embedding, names.front(), queries_of(e, share, states), k,
                          e.run.model.l2_normalize ? ScoreBy::kCosine : ScoreBy::kDotProduct,
                          communicator, state.stream);

    std::vector<std::int64_t> ranks;
    for (std::size_t i = 0; i < targets.size(); ++i) {
      const auto row = best.begin() + static_cast<std::int64_t>(i) * k;
      const auto found = std::find(row, row + k, targets[i]);
      ranks.push_back(found == row + k ? kNotRanked : found - row + 1);
    }
    const auto gathered = communicator.gather<std::int64_t>("target ranks", ranks).values;
    all_ranks.insert(all_ranks.end(), gathered.begin(), gathered.end());
  }
  return all_ranks;
}

std::map<std::string, double> metrics_of(const std::vector<std::int64_t>& ranks,
                                         const std::vector<std::int64_t>& cutoffs) {
  std::map<std::string, double> metrics;
  for (const std::int64_t k : cutoffs) {
    const RankingMetrics at_k = ranking_metrics(ranks, k);
    metrics[fmt::format("hr@{}", k)] = at_k.hr;
    metrics[fmt::format("ndcg@{}", k)] = at_k.ndcg;
  }
  return metrics;
}

/// Counted on rank 0, given to all.
BaselineRanks shared_baselines(const Evaluation& e, Communicator& communicator) {
  BaselineRanks ranks;
  together(communicator, "baselines", [&] {
    if (communicator.rank() > 0) return;
    ranks = rank_baselines(*e.dataset, e.split,
                           e.options.filter_seen ? SeenItems::kFilter : SeenItems::kKeep,
                           unknown_ids(e.run.invalid_ids));
  });
  for (auto* list : {&ranks.popularity, &ranks.repeat, &ranks.markov}) {
    *list = communicator.gather<std::int64_t>("baseline ranks", *list).values;
  }
  return ranks;
}

}  // namespace

EvaluationResult evaluate(const EvaluateOptions& options, Communicator& communicator) {
  EvaluateOptions fields = options;
  require_agreement(communicator, "options", options_to_json(option_table(fields)));
  check_options(options);
  const Stream stream(choose_device(device_choice_from_string(options.device), communicator),
                      options.threads);
  check_precision(options.precision, stream.device());
  const std::string checkpoints = checkpoint_path(options.model);
  const auto saved = read_newest_manifest(checkpoints, communicator);
  if (!saved) {
    throw usage_error(
        fmt::format("--model {} holds no checkpoint (is it the --output of a training "
                    "that saved one?)",
                    options.model));
  }
  const RunDescription run = run_from_texts(saved->texts, options.model);
  Evaluation e{.options = options, .run = run.options, .dataset = {}, .split = {}};
  e.run.model.precision = options.precision;
  EvaluationResult result;
  together(communicator, "open dataset", [&] {
    e.dataset.emplace(Dataset::open(options.data));
    RunDescription now = run;
    now.options.data = options.data;
    now.dataset_digest = e.dataset->digest();
    check_same_dataset(run, now);
    e.split = make_split(*e.dataset, split_kind_from_string(e.run.split), e.run.time_quantile);
    if (e.split.cases.empty()) {
      throw usage_error(fmt::format("{}: split {} holds nothing out", options.data, e.run.split));
    }
    result.users_left_out = leave_out_unknown(e);
    if (e.split.cases.empty()) {
      throw usage_error(fmt::format(
          "{}: no user is left to evaluate: {} have an invalid target or no valid history",
          options.data, result.users_left_out));
    }
    e.run = evaluation_options(std::move(e.run), communicator.size());
  });
  TrainOptions model = e.run;
  model.sparse_optimizer.type = SparseOptimizer::kSgd;  // which has no state
  RunPlan plan =
      evaluation_plan(*e.dataset, e.split, model, options, communicator, stream.device());
  e.tokens_at_once = plan.tokens_at_once;
  if (communicator.rank() == 0) say_plain_attention(e.run.model);
  TrainState state =
      make_train_state(*e.dataset, model, std::move(plan.sharding), communicator, stream);
  // The newest now, which may be newer than the one above; of the same run in any case.
  const auto loaded = load_weights(checkpoints, weights_of(state), communicator, stream);
  check(loaded.has_value(), "the checkpoints of the run went away");

  result.precision = options.precision;
  result.device = device_given(options.device, stream.device());
  result.users = static_cast<std::int64_t>(e.split.cases.size());
  // First: what they are counted with is freed before the model ranks.
  const BaselineRanks baselines = shared_baselines(e, communicator);
  result.scorers.emplace_back("model", metrics_of(rank_by_model(e, state), options.cutoffs));
  result.scorers.emplace_back("popularity", metrics_of(baselines.popularity, options.cutoffs));
  result.scorers.emplace_back("repeat", metrics_of(baselines.repeat, options.cutoffs));
  result.scorers.emplace_back("markov", metrics_of(baselines.markov, options.cutoffs));
  return result;
}

std::string to_json(const EvaluationResult& result) {
  nlohmann::ordered_json json;
  for (const auto& [name, metrics] : result.scorers) json[name] = metrics;
  json["device"] = result.device;
  json["precision"] = to_string(result.precision);
  json["users"] = result.users;
  json["users_left_out"] = result.users_left_out;
  return json.dump(2) + "\n";
}

}  // namespace serrate
