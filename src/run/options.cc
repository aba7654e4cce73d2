#include "src/run/options.h"

#include <fmt/format.h>

#include <limits>

#include "serrate/kernels/attention.h"
#include "serrate/kernels/attention_tensor_cores.h"
#include "serrate/rank_device.h"
#include "sharding/files/quantity.h"
#include "src/core/say.h"
#include "src/data/split.h"
#include "src/run/files.h"

namespace serrate {
namespace {

// Far beyond what any machine trains, and so small that no product of three of them and the bytes
// of a value overflows; what is too large for this machine is the memory check's to say.
constexpr std::int64_t kMostSequences = 1'000'000'000;
constexpr std::int64_t kMostSteps = 1'000'000'000'000'000;
constexpr std::int64_t kMostWidth = 1'000'000;
constexpr std::int64_t kMostBlocks = 1000;
constexpr std::int64_t kMostThreads = 1024;
constexpr std::int64_t kMostRanks = 1'000'000;
constexpr std::int64_t kMostVirtualRanks = 4096;

constexpr Numbers kAboveZero{.at_least = Numbers::Least::kLeftOut};
constexpr Numbers kBelowOne{.end = 1};
constexpr Numbers kBetweenZeroAndOne{.end = 1, .at_least = Numbers::Least::kLeftOut};

void check_split(const std::string& text) {
  try {
    split_kind_from_string(text);
  } catch (const Error&) {
    throw usage_error("last-item|last-basket|time");
  }
}

void check_bytes(const std::string& text) {
  try {
    bytes_from_string(text);
  } catch (const Error&) {
    throw usage_error("an amount of memory such as 8GiB or 512MB");
  }
}

void check_interval(const std::string& text) {
  checkpoint_interval_from_string(text);
}

void require(bool holds, const char* option, const std::string& need) {
  if (!holds) throw usage_error(fmt::format("--{} has to be {}", option, need));
}

Option precision_option(Precision& field) {
  return option(
      "precision", field,
      "precision of products in encoder and head; bf16: of activations, too; on the CPU only fp32",
      "fp32|tf32|bf16", precision_from_string);
}

template <typename Fields>
void check_ranges(Fields fields) {
  for (const Option& option : option_table(fields)) option.set(option.text());
}

}  // namespace

Option device_option(std::string& field) {
  return make_option(
      "device", "auto|cpu|cuda[:N]", "where ranks work; auto: on GPUs, if each has one",
      Option::Kind::kText, [&field] { return field; },
      [&field](const std::string& text) {
        try {
          device_choice_from_string(text);
        } catch (const Error&) {
          throw usage_error("auto|cpu|cuda|cuda:N");  // "--device "gpu" (takes ...)"
        }
        field = text;
      });
}

std::string device_given(const std::string& option, Device used) {
  if (option != "auto") return option;
  return used.type == DeviceType::kCpu ? "cpu" : "cuda";
}

std::vector<Option> option_table(TrainOptions& o) {
  const auto with_sums = OnResume::kMustMatchWhenReproducible;
  return {
      option("data", o.data, "dataset file").required().input(),
      option("output", o.output, "run directory; a run that it holds is resumed")
          .required()
          .directory(),
      option("plan", o.plan,
             "plan file, or auto for the planner's; by default tables are spread evenly"),
      option("topology", o.topology, "topology file: the machines that --plan auto plans for")
          .input(),
      option("sharding-types", o.sharding_types,
             "sharding types that --plan auto may use; by default any"),
      option("memory-limit", o.memory_limit,
             "memory of a rank, such as 8GiB; by default what is available", "BYTES", check_bytes),
      option("ranks-per-node", o.ranks_per_node,
             "consecutive ranks that share a node; 0: as the plan says, or all", {0, kMostRanks}),
      option("split", o.split, "what is held out", "last-item|last-basket|time", check_split)
          .must_match(),
      option("time-quantile", o.time_quantile, "where --split time cuts the events",
             kBetweenZeroAndOne)
          .must_match(),
      option("metrics", o.metrics,
             "file with a line of JSON per step; by default metrics.jsonl in --output"),
      option("epochs", o.epochs, "passes over the training data", {1, kMostSequences}),
      option("steps", o.steps, "number of steps, instead of --epochs; 0: as --epochs says",
             {0, kMostSteps}),
      option("batch-size", o.batch_size, "sequences per step, over all ranks", {1, kMostSequences})
          .must_match(),
      option("micro-batch-tokens", o.micro_batch_tokens,
             "tokens that a rank passes through the encoder at once; on a GPU always the batch",
             {1, kMostSequences})
          .must_match(with_sums),
      option("windows", o.windows, "what a user trains on: the latest events, or the whole history",
             "latest|all", training_windows_from_string)
          .must_match(),
      option("negatives", o.negatives, "items sampled per step; 0: a full softmax over all items",
             {0, kMostSequences})
          .must_match(),
      option("seed", o.seed,
             "seed of data order, initial weights, negatives, dropout, rounding of 16-bit tables")
          .must_match(),
      option("threads", o.threads, "OpenMP threads of a rank", {1, kMostThreads}),
      device_option(o.device).newer(),
      precision_option(o.model.precision).newer().must_match(with_sums),
      option("reproducible", o.reproducible,
             "gives the same bits on any number of ranks and threads, with any plan")
          .must_match(),
      option("virtual-ranks", o.virtual_ranks,
             "shares of the batch that --reproducible sums in a fixed tree", {1, kMostVirtualRanks})
          .must_match(with_sums),
      option("checkpoint-every", o.checkpoint_every,
             "steps (500) or time (10min) between checkpoints; by default one at the end", "N|TIME",
             check_interval),
      option("keep", o.keep_checkpoints, "number of checkpoints to keep", {1, kMostSequences}),
      option("fresh", o.fresh, "moves an earlier run in --output aside instead of resuming it")
          .not_stored(),
      option("learning-rate", o.dense_optimizer.learning_rate,
             "AdamW's learning rate, for dense weights")
          .must_match(),
      option("weight-decay", o.dense_optimizer.weight_decay,
             "AdamW's weight decay, for dense weights")
          .must_match(),
      option("beta1", o.dense_optimizer.beta1, "AdamW's decay of the mean gradient", kBelowOne)
          .must_match()
          .newer(),
      option("beta2", o.dense_optimizer.beta2, "AdamW's decay of the mean squared gradient",
             kBelowOne)
          .must_match()
          .newer(),
      option("eps", o.dense_optimizer.eps, "what AdamW adds to its divisor", kAboveZero)
          .must_match()
          .newer(),
      option("optimizer", o.sparse_optimizer.type, "optimizer of the embedding tables",
             "sgd|adagrad|row_wise_adagrad|adam", sparse_optimizer_from_string)
          .must_match(),
      option("embedding-precision", o.embedding_precision,
             "type of the embedding tables' weights in memory and in checkpoints", "fp32|fp16|bf16",
             data_type_from_string)
          .must_match()
          .newer(),
      option("embedding-learning-rate", o.sparse_optimizer.learning_rate,
             "learning rate of the embedding tables")
          .must_match(),
      option("embedding-beta1", o.sparse_optimizer.beta1, "beta1 of --optimizer adam", kBelowOne)
          .must_match()
          .newer(),
      option("embedding-beta2", o.sparse_optimizer.beta2, "beta2 of --optimizer adam", kBelowOne)
          .must_match()
          .newer(),
      option("embedding-eps", o.sparse_optimizer.eps,
             "what the embeddings' optimizer, unless it is sgd, adds to its divisor", kAboveZero)
          .must_match()
          .newer(),
      option("invalid-ids", o.invalid_ids, "what happens to an id outside its table",
             "error|drop|oov", invalid_ids_from_string)
          .must_match(),
      option("features", o.model.features,
             "categorical columns whose embeddings are added to the item's")
          .must_match(),
      option("dim", o.model.dim, "columns of embeddings and hidden states", {1, kMostWidth})
          .must_match(),
      option("blocks", o.model.num_blocks, "number of attention blocks", {0, kMostBlocks})
          .must_match(),
      option("heads", o.model.num_heads, "attention heads, a divisor of --dim", {1, kMostWidth})
          .must_match(),
      option("feed-forward", o.model.feed_forward_dim,
             "hidden columns of the feed-forward layers; 0: 4 x --dim", {0, 4 * kMostWidth})
          .must_match(),
      option("max-length", o.model.max_length, "events of a sequence; the latest ones are kept",
             {1, kMostSequences})
          .must_match(),
      option("dropout", o.model.dropout, "dropout rate", kBelowOne).must_match(),
      option("activation", o.model.activation, "activation of the feed-forward layers",
             "gelu|gelu_tanh|relu|silu", activation_from_string)
          .must_match(),
      option("temperature", o.model.temperature, "divides the scores", kAboveZero).must_match(),
      option("l2-normalize", o.model.l2_normalize, "scores by cosine similarity").must_match(),
  };
}

std::vector<Option> option_table(EvaluateOptions& o) {
  return {
      option("data", o.data, "dataset file").required().input(),
      option("model", o.model, "run directory of serrate train").required().directory(),
      option("k", o.cutoffs, "cutoffs K of HR@K and NDCG@K", {1, kMostSequences}),
      option("filter-seen", o.filter_seen, "leaves items of the user's history out of the ranking"),
      option("batch-size", o.batch_size, "sequences per batch, over all ranks",
             {1, kMostSequences}),
      option("threads", o.threads, "OpenMP threads of a rank", {1, kMostThreads}),
      device_option(o.device),
      precision_option(o.precision),
  };
}

void check_options(const TrainOptions& o, int world_size) {
  check_ranges(o);
  require(!o.data.empty(), "data", "a dataset file");
  require(!o.output.empty(), "output", "a directory for the run");
  check_files(o);
  require(o.ranks_per_node == 0 || world_size % o.ranks_per_node == 0, "ranks-per-node",
          fmt::format("a divisor of the {} ranks (got {})", world_size, o.ranks_per_node));
  for (const std::string& type : o.sharding_types) sharding_type_from_string(type);
  require(o.plan == "auto" || (o.topology.empty() && o.sharding_types.empty()), "plan",
          "auto for --topology and --sharding-types to have a meaning");
  require(o.model.dim % o.model.num_heads == 0, "heads",
          fmt::format("a divisor of --dim {} (got {})", o.model.dim, o.model.num_heads));
  require(o.model.dim / o.model.num_heads <= kMaxHeadDim, "heads",
          fmt::format("so many that --dim / --heads is at most {} (got {} / {})", kMaxHeadDim,
                      o.model.dim, o.model.num_heads));
}

void check_options(const EvaluateOptions& o) {
  check_ranges(o);
  require(!o.data.empty(), "data", "a dataset file");
  require(!o.model.empty(), "model", "a run directory");
}

void check_precision(Precision precision, Device device) {
  require(precision == Precision::kFp32 || device.type == DeviceType::kCuda, "precision",
          fmt::format("fp32 on the CPU (got {})", to_string(precision)));
}

void say_plain_attention(const SequenceModelOptions& model) {
  const std::int64_t head_dim = model.dim / model.num_heads;
  const Precision precision = model.precision;
  if (precision == Precision::kFp32 || attention_has_tensor_cores(head_dim, precision)) return;
  say(fmt::format(
      "attention in {} runs without tensor cores (--dim {} over --heads {} are heads of {} "
      "columns): faster with 32, 64, 128 or 256",
      to_string(precision), model.dim, model.num_heads, head_dim));
}

std::int64_t tokens_at_once(const TrainOptions& options, DeviceType device) {
  return device == DeviceType::kCpu ? options.micro_batch_tokens
                                    : std::numeric_limits<std::int64_t>::max();
}

std::optional<OptionDifference> first_difference(const TrainOptions& before,
                                                 const TrainOptions& now) {
  TrainOptions a = before, b = now;
  const std::vector<Option> options_a = option_table(a), options_b = option_table(b);
  for (std::size_t i = 0; i < options_a.size(); ++i) {
    const Option& option = options_a[i];
    if (option.on_resume == OnResume::kMayChange) continue;
    const bool is_about_sums = option.on_resume == OnResume::kMustMatchWhenReproducible;
    if (is_about_sums && !before.reproducible && !now.reproducible) continue;
    const std::string text_a = option.text(), text_b = options_b[i].text();
    if (text_a != text_b) return OptionDifference{option.name, text_a, text_b};
  }
  return std::nullopt;
}

CheckpointInterval checkpoint_interval_from_string(const std::string& text) {
  if (text.empty()) return {};
  try {
    if (text.find_first_not_of("0123456789") != std::string::npos) {
      return {.time = milliseconds_from_string(text)};
    }
    return {.steps = whole_number(text, {1, kMostSteps})};
  } catch (const Error&) {
    throw usage_error("a number of steps such as 500, or a time such as 10min");
  }
}

}  // namespace serrate
