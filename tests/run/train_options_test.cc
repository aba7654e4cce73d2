#include "src/run/options.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "serrate/kernels/attention_tensor_cores.h"
#include "src/run/checkpoint.h"
#include "src/run/config.h"

namespace serrate {
namespace {

using std::chrono_literals::operator""min;  // NOLINT(misc-unused-using-decls): 10min

TrainOptions given() {
  TrainOptions options;
  options.data = "data.h5";
  options.output = "run";
  return options;
}

// What check_options says of the options that `change` makes of given().
template <typename Change>
std::string error_of(Change&& change, int world_size = 4) {
  TrainOptions options = given();
  change(options);
  try {
    check_options(options, world_size);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUsage);
    return error.what();
  }
  return "";
}

// Sets the option as the command line does; empty when it takes the text.
std::string set(const std::string& name, const std::string& text) {
  TrainOptions options;
  const auto table = option_table(options);
  const auto found = std::ranges::find(table, name, &Option::name);
  if (found == table.end()) return "no such option";
  try {
    found->set(text);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(TrainOptions, EveryNumberHasARangeAndIsRefusedByName) {
  TrainOptions options;
  for (const Option& option : option_table(options)) {
    if (option.kind != Option::Kind::kNumber) continue;
    for (const std::string text : {"nan", "inf", "-inf", "-1", "-9223372036854775808", "", "1x",
                                   "99999999999999999999", "0x10", " 1"}) {
      const std::string error = set(option.name, text);
      const bool is_a_number = option.takes == "X" && text == "99999999999999999999";
      if (is_a_number) continue;
      EXPECT_EQ(error.find("--" + option.name + " \"" + text + "\" (takes a "), 0) << error;
    }
  }
}

TEST(TrainOptions, EndsOfRanges) {
  const std::string most = "1000000000", above = "1000000001";
  for (const char* name : {"epochs", "batch-size", "micro-batch-tokens", "max-length"}) {
    EXPECT_EQ(set(name, "1"), "");
    EXPECT_EQ(set(name, most), "");
    const std::string takes = "\" (takes a whole number from 1 to 1000000000)";
    EXPECT_EQ(set(name, "0"), "--" + std::string(name) + " \"0" + takes);
    EXPECT_EQ(set(name, above), "--" + std::string(name) + " \"" + above + takes);
    EXPECT_EQ(set(name, "9223372036854775807"),
              "--" + std::string(name) + " \"9223372036854775807" + takes);
  }
  EXPECT_EQ(set("seed", "18446744073709551615"), "");
  EXPECT_EQ(set("device", "cuda:1"), "");
  EXPECT_EQ(set("device", "gpu"), "--device \"gpu\" (takes auto|cpu|cuda|cuda:N)");
  EXPECT_EQ(set("precision", "bf16"), "");
  EXPECT_EQ(set("precision", "fp16"), "--precision \"fp16\" (takes fp32|tf32|bf16)");
  EXPECT_EQ(set("embedding-precision", "fp16"), "");
  EXPECT_EQ(set("embedding-precision", "tf32"),
            "--embedding-precision \"tf32\" (takes fp32|fp16|bf16)");
  EXPECT_EQ(set("dropout", "0"), "");
  EXPECT_EQ(set("dropout", "1"), "--dropout \"1\" (takes a number from 0 and below 1)");
  // Below one as a double, but one as the float that it becomes.
  EXPECT_EQ(set("dropout", "0.9999999999"),
            "--dropout \"0.9999999999\" (takes a number from 0 and below 1)");
  EXPECT_EQ(set("temperature", "0"), "--temperature \"0\" (takes a number above 0)");
  EXPECT_EQ(set("temperature", "1e-60"), "--temperature \"1e-60\" (takes a number above 0)");
  EXPECT_EQ(set("learning-rate", "1e39"), "--learning-rate \"1e39\" (takes a number from 0)");
  EXPECT_EQ(set("time-quantile", "1"),
            "--time-quantile \"1\" (takes a number above 0 and below 1)");
}

TEST(TrainOptions, FieldsThatNoCommandLineSetAreCheckedToo) {
  EXPECT_EQ(error_of([](TrainOptions&) {}), "");
  EXPECT_EQ(error_of([](TrainOptions& o) { o.model.num_heads = 0; }),
            "--heads \"0\" (takes a whole number from 1 to 1000000)");
  EXPECT_EQ(error_of([](TrainOptions& o) { o.model.num_heads = 3; }),
            "--heads has to be a divisor of --dim 64 (got 3)");
  EXPECT_EQ(error_of([](TrainOptions& o) { o.dense_optimizer.weight_decay = -1; }),
            "--weight-decay \"-1\" (takes a number from 0)");
  EXPECT_EQ(error_of([](TrainOptions& o) { o.ranks_per_node = 3; }),
            "--ranks-per-node has to be a divisor of the 4 ranks (got 3)");
  EXPECT_EQ(error_of([](TrainOptions& o) { o.output = ""; }),
            "--output has to be a directory for the run");
  EXPECT_EQ(error_of([](TrainOptions& o) { o.checkpoint_every = "10"; }), "");
  EXPECT_EQ(error_of([](TrainOptions& o) { o.checkpoint_every = "10 steps"; }),
            "--checkpoint-every \"10 steps\" (takes a number of steps such as 500, or a time such "
            "as 10min)");
}

TEST(TrainOptions, CheckpointInterval) {
  EXPECT_EQ(checkpoint_interval_from_string("500").steps, 500);
  EXPECT_EQ(checkpoint_interval_from_string("10min").time, 10min);
  EXPECT_EQ(checkpoint_interval_from_string("2h").time, 120min);
  EXPECT_EQ(checkpoint_interval_from_string("").steps, 0);
  EXPECT_EQ(checkpoint_interval_from_string("").time, 0min);
  EXPECT_THROW(checkpoint_interval_from_string("0"), Error);
  EXPECT_THROW(checkpoint_interval_from_string("0s"), Error);
}

TEST(RunConfig, IsReadBackAsItWas) {
  TrainOptions options = given();
  options.data = "\"quoted\" \\ caf\xc3\xa9.h5";
  options.model.dropout = 0.1f;
  options.dense_optimizer.learning_rate = 0x1.921fb6p-9f;  // nine digits
  options.time_quantile = 0.1 + 0.2;                       // seventeen
  options.seed = 18446744073709551615u;
  options.model.features = {"price", "country"};
  options.model.l2_normalize = true;
  options.invalid_ids = InvalidIds::kOov;
  const std::string json = to_json(options);
  EXPECT_NE(json.find("\"dropout\": 0.1,"), std::string::npos) << json;
  const TrainOptions read = train_options_from_json(json);
  EXPECT_EQ(read.data, options.data);
  EXPECT_EQ(read.model.dropout, options.model.dropout);
  EXPECT_EQ(read.dense_optimizer.learning_rate, options.dense_optimizer.learning_rate);
  EXPECT_EQ(read.time_quantile, options.time_quantile);
  EXPECT_EQ(read.seed, options.seed);
  EXPECT_EQ(read.model.features, options.model.features);
  EXPECT_EQ(to_json(read), json);
  EXPECT_EQ(first_difference(read, options), std::nullopt);
}

TEST(RunConfig, ErrorsNameFileAndField) {
  const std::string json = to_json(given());
  const auto error_of_json = [&](const std::string& from, const std::string& to) {
    std::string changed = json;
    changed.replace(changed.find(from), from.size(), to);
    try {
      train_options_from_json(changed, "run/config.json");
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kUsage);
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_EQ(error_of_json("\"heads\": 2", "\"heads\": 0"),
            "run/config.json: --heads \"0\" (takes a whole number from 1 to 1000000)");
  EXPECT_EQ(error_of_json("\"heads\": 2,", ""), "run/config.json: \"heads\" is missing");
  // Runs of before it was an option.
  EXPECT_EQ(error_of_json("\"beta1\": 0.9,", ""), "no error");
  EXPECT_EQ(error_of_json("\"beta1\": 0.9", "\"beta1\": 1"),
            "run/config.json: --beta1 \"1\" (takes a number from 0 and below 1)");
  EXPECT_EQ(error_of_json("\"heads\": 2", "\"heads\": 2, \"head\": 2"),
            "run/config.json: \"head\" is not an option of a run");
  EXPECT_EQ(error_of_json("\"gelu\"", "\"gelo\""),
            "run/config.json: --activation \"gelo\" (takes gelu|gelu_tanh|relu|silu)");
  EXPECT_EQ(error_of_json("\"dropout\": 0.2", "\"dropout\": \"none\""),
            "run/config.json: --dropout \"none\" (takes a number from 0 and below 1)");
}

std::string difference(void (*change)(TrainOptions&), bool reproducible = false) {
  TrainOptions before = given();
  before.reproducible = reproducible;
  TrainOptions now = before;
  change(now);
  const auto found = first_difference(before, now);
  return found ? found->name + ": " + found->before + ", " + found->now : "";
}

TEST(FirstDifference, NamesWhatDecidesModelOrOrderAndLetsTheRestChange) {
  EXPECT_EQ(difference([](TrainOptions& o) { o.model.dropout = 0.3f; }), "dropout: 0.2, 0.3");
  EXPECT_EQ(difference([](TrainOptions& o) { o.batch_size = 64; }), "batch-size: 128, 64");
  EXPECT_EQ(difference([](TrainOptions& o) { o.windows = TrainingWindows::kLatest; }),
            "windows: all, latest");
  EXPECT_EQ(difference([](TrainOptions& o) {
              o.data = "moved.h5";
              o.output = "moved";
              o.plan = "auto";
              o.sharding_types = {"row_wise"};
              o.ranks_per_node = 2;
              o.threads = 7;
              o.device = "cuda:1";
              o.steps = 9;
              o.epochs = 99;
              o.checkpoint_every = "5min";
              o.keep_checkpoints = 9;
              o.metrics = "elsewhere.jsonl";
              o.memory_limit = "1GiB";
              o.fresh = true;
            }),
            "");
}

TEST(FirstDifference, RoundingOfSumsMattersToReproducibleRuns) {
  const auto change = [](TrainOptions& o) { o.micro_batch_tokens = 8; };
  EXPECT_EQ(difference(change), "");
  EXPECT_EQ(difference(change, true), "micro-batch-tokens: 1024, 8");
  const auto other_precision = [](TrainOptions& o) { o.model.precision = Precision::kBf16; };
  EXPECT_EQ(difference(other_precision), "");
  EXPECT_EQ(difference(other_precision, true), "precision: fp32, bf16");
  EXPECT_EQ(difference([](TrainOptions& o) { o.reproducible = true; }),
            "reproducible: false, true");
}

TEST(TrainOptions, CheckpointsFromBeforeAnOptionHaveItsDefault) {
  RunDescription run{.options = {}, .dataset_digest = "d"};
  run.options.batch_size = 7;
  run.options.dense_optimizer.beta1 = 0.5f;
  auto texts = to_texts(run);
  EXPECT_EQ(run_from_texts(texts, "run").options.dense_optimizer.beta1, 0.5f);
  EXPECT_EQ(texts.erase("option.beta1"), 1u);
  EXPECT_EQ(texts.erase("option.device"), 1u);
  const RunDescription read = run_from_texts(texts, "run");
  EXPECT_EQ(read.options.dense_optimizer.beta1, 0.9f);
  EXPECT_EQ(read.options.batch_size, 7);
  texts.erase("option.batch-size");
  EXPECT_THROW(run_from_texts(texts, "run"), Error);
}

// Those that a notice names, and none in fp32.
TEST(TrainOptions, HeadsThatTensorCoresHave) {
  for (const std::int64_t head_dim : {16, 32, 48, 64, 128, 256}) {
    const bool has_kernels = head_dim >= 32 && head_dim != 48;
    EXPECT_FALSE(attention_has_tensor_cores(head_dim, Precision::kFp32)) << head_dim;
    for (const Precision precision : {Precision::kTf32, Precision::kBf16}) {
      EXPECT_EQ(attention_has_tensor_cores(head_dim, precision), has_kernels) << head_dim;
    }
  }
}

}  // namespace
}  // namespace serrate
