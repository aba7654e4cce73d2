#include "serrate/trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>

#include "comm/agreement.h"
#include "comm/together.h"
#include "kernels/simd/target.h"
#include "serrate/rank_device.h"
#include "src/checkpoint/folder.h"
#include "src/checkpoint/load.h"
#include "src/core/checked_math.h"
#include "src/core/gpus.h"
#include "src/core/json.h"
#include "src/core/say.h"
#include "src/data/prefetcher.h"
#include "src/data/sequence_reader.h"
#include "src/data/split.h"
#include "src/io/text_file.h"
#include "src/run/checkpoint.h"
#include "src/run/config.h"
#include "src/run/directory.h"
#include "src/run/metrics_file.h"
#include "src/run/options.h"
#include "src/run/plan.h"
#include "src/run/step_queue.h"
#include "src/train/model_state.h"
#include "src/train/train_step.h"

namespace serrate {
namespace {

constexpr std::size_t kBatchesAhead = 2;
constexpr const char* kInvalidIds = "invalid_ids";
constexpr const char* kProcessor = "processor";

/// Checks the options, which all ranks have to have alike, before anything depends on them.
Device device_of(const TrainOptions& options, Communicator& communicator) {
  require_agreement(communicator, "options", to_json(options));
  together(communicator, "options", [&] { check_options(options, communicator.size()); });
  return choose_device(device_choice_from_string(options.device), communicator);
}

/// What decides how sums are rounded: "AVX2", "sm_90".
std::string processor_of(Device device) {
  return device.type == DeviceType::kCpu ? simd_target() : gpu_architecture(device);
}

ReaderOptions reader_options(const TrainOptions& options, const Dataset& dataset,
                             const Communicator& communicator) {
  ReaderOptions reader{.batch_size = options.batch_size,
                       .max_length = options.model.max_length,
                       .shares = batch_shares(options, communicator.rank(), communicator.size()),
                       .seed = options.seed,
                       .windows = options.windows,
                       .features = {},
                       .unknown_ids = unknown_ids(options.invalid_ids)};
  for (const std::string& name : token_features(dataset, options.model)) {
    reader.features.push_back(dataset.feature_index(name));
  }
  return reader;
}

/// What the ranks sum after a step, as well as losses and tokens.
struct StepWords {
  static constexpr std::size_t kOwn = 3;
  std::array<std::int64_t, kOwn + CheckpointWriter::kWords> values{};

  std::int64_t& stop() { return values[0]; }  // ranks that were told to
  std::int64_t& due() { return values[1]; }   // 1 from rank 0
  std::int64_t& invalid_ids() { return values[2]; }
  void set(const std::array<std::int64_t, CheckpointWriter::kWords>& words) {
    std::ranges::copy(words, values.begin() + kOwn);
  }
  std::array<std::int64_t, CheckpointWriter::kWords> checkpoint() const {
    std::array<std::int64_t, CheckpointWriter::kWords> words;
    std::copy(values.begin() + kOwn, values.end(), words.begin());
    return words;
  }
};

}  // namespace

struct Trainer::Impl {
  Impl(TrainOptions train_options, Communicator& comm)
      : options(std::move(train_options)),
        communicator(comm),
        stream(device_of(options, comm), options.threads),
        reader_stream(stream.device(), options.threads),
        processor(processor_of(stream.device())) {
    check_precision(options.model.precision, stream.device());
    options.device = device_given(options.device, stream.device());
    if (options.reproducible) {
      require_agreement(communicator, "the kind of processor", json_string(processor));
    }
    together(communicator, "open dataset", [&] {
      dataset.emplace(Dataset::open(options.data));
      split = make_split(*dataset, split_kind_from_string(options.split), options.time_quantile);
      split.cases = {};  // for evaluation alone
      reader.emplace(*dataset, split, reader_options(options, *dataset, communicator));
    });
    description = {options, dataset->digest()};
    require_agreement(communicator, "the contents of --data",
                      json_string(description.dataset_digest));
    RunPlan plan = run_plan(*dataset, split, options, communicator, stream.device());
    tokens_at_once = plan.tokens_at_once;
    total_steps = options.steps > 0
                      ? options.steps
                      : checked_product("--epochs", {options.epochs, reader->batches_per_epoch()});

    together(communicator, "run directory", [&] {
      if (communicator.rank() == 0) make_run_directory(options.output, options.fresh);
    });
    checkpoints.emplace(checkpoint_path(options.output), options.keep_checkpoints, communicator);
    if (const auto saved = read_newest_manifest(checkpoint_path(options.output), communicator)) {
      check_same_run(run_from_texts(saved->texts, options.output), description);
      warn_of_other_processor(saved->texts);
    }
    if (communicator.rank() == 0) say_plain_attention(options.model);
    state.reset(new TrainState(
        make_train_state(*dataset, options, std::move(plan.sharding), communicator, stream)));
    steps.emplace(*state, [this] { return next_batch(); });
    state->times.measure();
    resume();
  }

  /// Memory of batches goes in the order of the reader's stream, behind the steps that use it.
  ~Impl() {
    batches.reset();
    try {
      reader_stream.wait_for(stream);
      reader_stream.wait_for(state->input_stream);
    } catch (const Error&) {  // NOLINT(bugprone-empty-catch): nothing runs on a failed device
    }
  }

  void warn_of_other_processor(const std::map<std::string, std::string>& texts) const {
    const auto before = texts.find(kProcessor);
    if (!options.reproducible || communicator.rank() > 0 || before == texts.end() ||
        before->second == processor) {
      return;
    }
    say(fmt::format(
        "warning: the run in {} was begun on a processor of the kind {}, this one is {}: from "
        "here on it has other bits than on one kind",
        options.output, before->second, processor));
  }

  void resume() {
    const auto loaded = checkpoints->resume(checkpoint_state(*state), stream);
    if (!loaded) return;
    steps_done = loaded->step;
    if (const auto found = loaded->integers.find(kInvalidIds); found != loaded->integers.end()) {
      invalid_ids_before = found->second;
    }
    if (communicator.rank() > 0) return;
    say(steps_done < total_steps
            ? fmt::format("resuming the run in {} after step {} of {}", options.output, steps_done,
                          total_steps)
            : fmt::format("the run in {} has done {} of {} steps: nothing is left to do (more "
                          "--epochs or --steps go on, --fresh begins anew)",
                          options.output, steps_done, total_steps));
  }

  /// What is saved, with the invalid ids of all ranks in this process.
  CheckpointState state_to_save(std::int64_t invalid_ids) {
    CheckpointState saved = checkpoint_state(*state);
    saved.integers[kInvalidIds] = invalid_ids_before + invalid_ids;
    saved.texts = to_texts(description);
    saved.texts[kProcessor] = processor;
    return saved;
  }

  /// How many steps are queued before the oldest is reported. A GPU makes the last one while the
  /// ranks speak of the one before.
  std::size_t steps_ahead() const { return stream.device().type == DeviceType::kCpu ? 0 : 1; }

  NextItemBatch next_batch() {
    if (!batches) start_batches(steps_done);
    return *batches->next();
  }

  void queue_step() {
    check(steps_done < total_steps, "no step is left");
    steps->add(steps_done + 1, steps_done + 1 < total_steps);
    ++steps_done;
  }

  /// The loss of the oldest step if more than `most` are queued, and the sums of the words.
  std::optional<StepResult> report(std::size_t most, StepWords& words) {
    const std::optional<StepResult> result = steps->report(most, words.values);
    if (!result) return std::nullopt;
    if (!std::isfinite(result->loss)) {
      throw Error(
          fmt::format("the loss is {} in step {} (the training diverged): lower the learning "
                      "rates",
                      result->loss, result->step));
    }
    if (metrics) metrics->write(*result);
    return result;
  }

  std::int64_t own_invalid_ids() const {
    return steps->dropped_events() + state->embedding.invalid_ids();
  }

  void open_metrics() {
    metrics.emplace(options.metrics.empty() ? metrics_path(options.output) : options.metrics,
                    steps_done);
    // A checkpoint whose steps have no lines would leave a hole in them.
    checkpoints->set_before_commit([this] { metrics->sync(); });
  }

  /// The run's configuration and plan, for people.
  void describe_run_in_files() {
    together(communicator, "run directory", [&] {
      if (communicator.rank() > 0) return;
      write_text_file(config_path(options.output), to_json(options));
      write_text_file(plan_path(options.output), plan_to_json(state->embedding.plan()));
    });
  }

  /// The batches from step `first_step` on, made on a thread of their own.
  void start_batches(std::int64_t first_step) {
    const auto names = token_features(*dataset, options.model);
    BatchShape shape = batch_shape(options, dataset->num_items());
    shape.micro_batch_tokens = tokens_at_once;
    shape.rank = communicator.rank();
    shape.world_size = communicator.size();
    batches.emplace(
        [this, names, shape, next = first_step]() mutable -> std::optional<NextItemBatch> {
          if (next >= total_steps) return std::nullopt;
          const auto negatives =
              draw_negatives(options.negatives, dataset->num_items(), options.seed, next);
          return make_next_item_batch(reader->read(next++), names, negatives, shape, reader_stream);
        },
        kBatchesAhead);
  }

  TrainOptions options;
  Communicator& communicator;
  Stream stream;
  Stream reader_stream;   // of the reader's thread: batches are copied while steps are made
  std::string processor;  // processor_of() the rank's device
  RunDescription description;
  std::optional<Dataset> dataset;
  Split split;
  std::optional<SequenceReader> reader;
  std::unique_ptr<TrainState> state;
  std::optional<MetricsFile> metrics;           // of rank 0, in run()
  std::optional<CheckpointWriter> checkpoints;  // its thread uses the two above
  std::int64_t steps_done = 0;
  std::int64_t invalid_ids_before = 0;  // on all ranks, in what was resumed
  std::int64_t total_steps = 0;
  std::int64_t tokens_at_once = 0;
  std::optional<StepQueue> steps;
  std::optional<Prefetcher<NextItemBatch>> batches;  // last: its thread reads the others
};

Trainer::Trainer(TrainOptions options, Communicator& communicator)
    : impl_(std::make_unique<Impl>(std::move(options), communicator)) {}

Trainer::~Trainer() = default;

const TrainOptions& Trainer::options() const {
  return impl_->options;
}

std::int64_t Trainer::steps_per_epoch() const {
  return impl_->reader->batches_per_epoch();
}

std::int64_t Trainer::total_steps() const {
  return impl_->total_steps;
}

bool Trainer::done() const {
  return impl_->steps_done >= impl_->total_steps;
}

std::int64_t Trainer::steps_done() const {
  return impl_->steps_done;
}

ShardedEmbedding& Trainer::embedding() {
  return impl_->state->embedding;
}

StepResult Trainer::step() {
  StepWords words;
  while (!impl_->steps->empty()) impl_->report(0, words);  // of a run() that was left
  impl_->queue_step();
  return *impl_->report(0, words);
}

bool Trainer::run(const std::atomic<bool>& stop,
                  const std::function<void(const StepResult&)>& on_step) {
  Impl& impl = *impl_;
  if (done() && impl.steps->empty()) return true;
  Communicator& communicator = impl.communicator;
  const bool is_first = communicator.rank() == 0;
  together(communicator, "metrics", [&] {
    if (is_first && !impl.metrics) impl.open_metrics();
  });
  impl.describe_run_in_files();

  // The losses of the steps that are queued: those of a GPU come one step late.
  const auto report = [&](std::size_t most, StepWords& words) {
    const std::optional<StepResult> result = impl.report(most, words);
    if (result && on_step) on_step(*result);
  };
  const auto report_all = [&] {
    StepWords none;
    while (!impl.steps->empty()) report(0, none);
  };

  CheckpointDue due(checkpoint_interval_from_string(impl.options.checkpoint_every));
  bool is_due = false, stopped = false;
  while (!done() && !stopped) {
    if (impl.steps->next_is_wrong()) report_all();
    impl.queue_step();
    // Ranks stop after the same step, whichever of them was told to, and save the same steps.
    StepWords words;
    words.stop() = stop.load() ? 1 : 0;
    words.due() = is_first && due.after(impl.steps_done) ? 1 : 0;
    words.invalid_ids() = impl.own_invalid_ids();
    words.set(impl.checkpoints->words());
    report(impl.steps_ahead(), words);
    impl.checkpoints->advance(words.checkpoint());
    stopped = words.stop() > 0;
    is_due = is_due || words.due() > 0;
    // One that is due waits for the one before, while the training goes on.
    if (is_due && !impl.checkpoints->busy() && !stopped && !done()) {
      report_all();  // a loss that is not finite is not saved
      is_due = false;
      due.begun();
      impl.state->times.start(impl.stream);
      impl.checkpoints->start(impl.steps_done, impl.state_to_save(words.invalid_ids()),
                              impl.stream);
      impl.state->times.lap("checkpoint copy", impl.stream);
    }
  }
  report_all();
  impl.checkpoints->finish();
  save();
  return done();
}

void Trainer::save() {
  Impl& impl = *impl_;
  check(impl.steps->empty(),
        "save() comes after run() or step(): on a GPU, in on_step, the next step is on its way and "
        "nobody has seen its loss; checkpoint_every has checkpoints written during a run");
  impl.checkpoints->finish();
  if (impl.steps_done > 0 && impl.checkpoints->newest_step() == impl.steps_done) return;
  std::int64_t invalid_ids = impl.own_invalid_ids();
  impl.communicator.sum<std::int64_t>("invalid_ids", {&invalid_ids, 1});
  impl.checkpoints->save(impl.steps_done, impl.state_to_save(invalid_ids), impl.stream);
  impl.describe_run_in_files();  // after the checkpoint, which must not be lost to them
}

std::int64_t Trainer::invalid_ids() {
  std::int64_t count = impl_->own_invalid_ids();
  impl_->communicator.sum<std::int64_t>("invalid_ids", {&count, 1});
  return impl_->invalid_ids_before + count;
}

std::vector<std::pair<std::string, double>> Trainer::stage_seconds() const {
  return impl_->state->times.seconds();
}

std::vector<std::pair<std::string, std::int64_t>> Trainer::memory_bytes() const {
  TrainState& s = *impl_->state;
  const std::int64_t dense_buffers = 5;  // values, gradients, two moments, decay
  return {{"tables", s.embedding.weight_bytes()},
          {"optimizer", s.embedding.optimizer_bytes()},
          {"dense", dense_buffers * s.encoder.parameters().size() * std::int64_t{sizeof(float)}},
          {"exchange", s.exchange.bytes() + s.ahead.bytes()},
          {"checkpoint", impl_->checkpoints->copy_bytes()},
          {"activations", s.encoder.activation_bytes() + s.head.activation_bytes() +
                              s.d_hidden.bytes() + s.negatives.bytes() + s.d_negatives.bytes() +
                              s.dense_sum.bytes() + s.negatives_sum.bytes()}};
}

}  // namespace serrate
