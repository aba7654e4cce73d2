#include "src/train/run_config.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <type_traits>

namespace serrate {
namespace {

using Json = nlohmann::ordered_json;

// Every option once: `visit(name, field)` writes or reads it.
template <typename Options, typename Visit>
void for_each_option(Options& o, Visit&& visit) {
  visit("data", o.data);
  visit("output", o.output);
  visit("plan", o.plan);
  visit("topology", o.topology);
  visit("sharding-types", o.sharding_types);
  visit("memory-limit", o.memory_limit);
  visit("ranks-per-node", o.ranks_per_node);
  visit("split", o.split);
  visit("time-quantile", o.time_quantile);
  visit("metrics", o.metrics);
  visit("epochs", o.epochs);
  visit("steps", o.steps);
  visit("batch-size", o.batch_size);
  visit("micro-batch-tokens", o.micro_batch_tokens);
  visit("windows", o.windows);
  visit("negatives", o.negatives);
  visit("seed", o.seed);
  visit("threads", o.threads);
  visit("reproducible", o.reproducible);
  visit("virtual-ranks", o.virtual_ranks);
  visit("checkpoint-every", o.checkpoint_every);
  visit("keep", o.keep_checkpoints);
  visit("learning-rate", o.dense_optimizer.learning_rate);
  visit("weight-decay", o.dense_optimizer.weight_decay);
  visit("optimizer", o.sparse_optimizer.type);
  visit("embedding-learning-rate", o.sparse_optimizer.learning_rate);
  visit("invalid-ids", o.invalid_ids);
  visit("dim", o.model.dim);
  visit("blocks", o.model.num_blocks);
  visit("heads", o.model.num_heads);
  visit("feed-forward", o.model.feed_forward_dim);
  visit("max-length", o.model.max_length);
  visit("dropout", o.model.dropout);
  visit("activation", o.model.activation);
  visit("temperature", o.model.temperature);
  visit("l2-normalize", o.model.l2_normalize);
  visit("features", o.model.features);
}

template <typename T>
T enum_from_string(const std::string& name);
template <>
TrainingWindows enum_from_string(const std::string& name) {
  return training_windows_from_string(name);
}
template <>
SparseOptimizer enum_from_string(const std::string& name) {
  return sparse_optimizer_from_string(name);
}
template <>
InvalidIds enum_from_string(const std::string& name) {
  return invalid_ids_from_string(name);
}
template <>
Activation enum_from_string(const std::string& name) {
  return activation_from_string(name);
}

}  // namespace

std::string to_json(const TrainOptions& options) {
  Json json;
  for_each_option(options, [&]<typename T>(const char* name, const T& field) {
    if constexpr (std::is_enum_v<T>) {
      json[name] = to_string(field);
    } else {
      json[name] = field;
    }
  });
  return json.dump(2) + "\n";
}

TrainOptions train_options_from_json(const std::string& text) {
  TrainOptions options;
  std::string at = "the text";
  try {
    const Json json = Json::parse(text);
    for_each_option(options, [&]<typename T>(const char* name, T& field) {
      at = fmt::format("\"{}\"", name);
      if constexpr (std::is_enum_v<T>) {
        field = enum_from_string<T>(json.at(name).template get<std::string>());
      } else {
        json.at(name).get_to(field);
      }
    });
  } catch (const nlohmann::json::exception& error) {
    throw usage_error(
        fmt::format("run configuration: {} is missing or wrong ({})", at, error.what()));
  }
  return options;
}

}  // namespace serrate
