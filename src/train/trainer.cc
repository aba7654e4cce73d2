#include "serrate/trainer.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>

#include "src/data/prefetcher.h"
#include "src/data/sequence_reader.h"
#include "src/data/split.h"
#include "src/io/text_file.h"
#include "src/train/checkpoint.h"
#include "src/train/checkpoint_manifest.h"
#include "src/train/model_state.h"
#include "src/train/run_config.h"
#include "src/train/run_directory.h"
#include "src/train/run_plan.h"
#include "src/train/together.h"
#include "src/train/train_options.h"
#include "src/train/train_step.h"

namespace serrate {
namespace {

constexpr std::size_t kBatchesAhead = 2;

/// A run directory is a run's alone: a checkpoint of another run would be taken for this one's.
void check_run_directory(const std::string& output) {
  std::error_code failure;
  std::filesystem::create_directories(output, failure);
  if (failure || ::access(output.c_str(), W_OK) != 0) {
    throw usage_error(fmt::format("--output {} cannot be written ({})", output,
                                  failure ? failure.message() : std::strerror(errno)));
  }
  if (!list_checkpoints(checkpoint_path(output)).empty()) {
    throw usage_error(
        fmt::format("--output {} holds a trained model (choose another, or remove it)", output));
  }
}

ReaderOptions reader_options(const TrainOptions& options, const Dataset& dataset,
                             const Communicator& communicator) {
  ReaderOptions reader{.batch_size = options.batch_size,
                       .max_length = options.model.max_length,
                       .shares = batch_shares(options, communicator.rank(), communicator.size()),
                       .seed = options.seed,
                       .windows = options.windows,
                       .features = {}};
  for (const std::string& name : token_features(dataset, options.model)) {
    reader.features.push_back(dataset.feature_index(name));
  }
  return reader;
}

}  // namespace

struct Trainer::Impl {
  Impl(TrainOptions train_options, Communicator& comm)
      : options(std::move(train_options)),
        communicator(comm),
        stream(Device::cpu(), options.threads) {
    together(communicator, "open dataset", [&] {
      check_options(options, communicator.size());
      check_run_directory(options.output);
      dataset.emplace(Dataset::open(options.data));
      split = make_split(*dataset, split_kind_from_string(options.split), options.time_quantile);
      split.cases = {};  // for evaluation alone
      reader.emplace(*dataset, split, reader_options(options, *dataset, communicator));
    });
    require_agreement(communicator, "options", to_json(options));
    state.reset(new TrainState(make_train_state(*dataset, options,
                                                run_plan(*dataset, split, options, communicator),
                                                communicator, stream)));
    total_steps = options.steps > 0 ? options.steps : options.epochs * reader->batches_per_epoch();
  }

  /// The batches from step `first_step` on, made on a thread of their own.
  void start_batches(std::int64_t first_step) {
    const auto names = token_features(*dataset, options.model);
    BatchShape shape = batch_shape(options, dataset->num_items());
    shape.rank = communicator.rank();
    shape.world_size = communicator.size();
    batches.emplace(
        [this, names, shape, next = first_step]() mutable -> std::optional<NextItemBatch> {
          if (next >= total_steps) return std::nullopt;
          const auto negatives =
              draw_negatives(options.negatives, dataset->num_items(), options.seed, next);
          return make_next_item_batch(reader->read(next++), names, negatives, shape, stream);
        },
        kBatchesAhead);
  }

  TrainOptions options;
  Communicator& communicator;
  Stream stream;
  std::optional<Dataset> dataset;
  Split split;
  std::optional<SequenceReader> reader;
  std::unique_ptr<TrainState> state;
  std::int64_t steps_done = 0;
  std::int64_t dropped_events = 0;  // on this rank
  std::int64_t total_steps = 0;
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

ShardedEmbedding& Trainer::embedding() {
  return impl_->state->embedding;
}

StepResult Trainer::step() {
  check(!done(), "no step is left");
  Impl& impl = *impl_;
  if (!impl.batches) impl.start_batches(impl.steps_done);
  impl.state->times.start();
  const std::optional<NextItemBatch> batch = impl.batches->next();
  impl.state->times.lap("reader", impl.stream);
  const std::int64_t step = ++impl.steps_done;
  impl.dropped_events += batch->dropped_events;
  const TrainStepResult result = train_step(*impl.state, *batch, step);
  if (!std::isfinite(result.loss)) {
    throw Error(
        fmt::format("the loss is {} in step {} (the training diverged) lower the learning "
                    "rates",
                    result.loss, step));
  }
  return {.step = step, .epoch = batch->epoch, .loss = result.loss, .tokens = result.tokens};
}

bool Trainer::run(const std::atomic<bool>& stop,
                  const std::function<void(const StepResult&)>& on_step) {
  Impl& impl = *impl_;
  Communicator& communicator = impl.communicator;
  std::optional<MetricsFile> metrics;
  together(communicator, "run directory", [&] {
    if (communicator.rank() > 0) return;
    write_text_file(config_path(impl.options.output), to_json(impl.options));
    write_text_file(plan_path(impl.options.output), plan_to_json(impl.state->embedding.plan()));
    metrics.emplace(impl.options.metrics.empty() ? metrics_path(impl.options.output)
                                                 : impl.options.metrics);
  });

  bool stopped = false;
  while (!done() && !stopped) {
    const StepResult result = step();
    if (metrics) metrics->write(result);
    if (on_step) on_step(result);
    // Ranks stop after the same step, whichever of them was told to.
    std::int64_t told = stop.load() ? 1 : 0;
    communicator.all_reduce_sum<std::int64_t>("stop", {&told, 1}, impl.stream);
    stopped = told > 0;
  }
  save();
  return done();
}

void Trainer::save() const {
  Impl& impl = *impl_;
  save_checkpoint(checkpoint_path(impl.options.output), impl.steps_done,
                  {impl.state->embedding, impl.state->encoder.parameters()}, impl.communicator,
                  impl.stream);
}

std::int64_t Trainer::invalid_ids() {
  std::int64_t count = impl_->dropped_events + impl_->state->embedding.invalid_ids();
  impl_->communicator.all_reduce_sum<std::int64_t>("invalid_ids", {&count, 1}, impl_->stream);
  return count;
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
          {"exchange", s.exchange.bytes()},
          {"activations", s.encoder.activation_bytes() + s.head.activation_bytes() +
                              s.d_hidden.capacity() * std::int64_t{sizeof(float)}}};
}

}  // namespace serrate
