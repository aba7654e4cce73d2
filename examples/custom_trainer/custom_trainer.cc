// A trainer with a model and a loop of its own: will a user click? Two sharded embedding tables
// (the items of a history, mean pooled, and the user's country), a linear layer and a logistic
// loss. Ranks are threads; with make_mpi_communicator (and, on GPUs, make_nccl_communicator) the
// same train() runs under mpirun. They work on the device that `device` says: on a GPU, on a
// cudaStream_t that this program creates, with the logits in memory that it allocates, as a program
// with its own kernels would.
//
//   custom_trainer [ranks [steps [directory [device]]]]
//
// With a directory ("" for none) it writes checkpoints there while it trains. Started again it goes
// on from the newest one, also on another number of ranks or another device: auto, cpu, cuda,
// cuda:N.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "serrate/checkpoint.h"
#include "serrate/kernels/adamw.h"
#include "serrate/kernels/linear.h"
#include "serrate/random.h"
#include "serrate/rank_device.h"
#include "serrate/sharded_embedding.h"
#include "serrate/thread_communicator.h"
#ifdef CUSTOM_TRAINER_WITH_CUDA
#include <cuda_runtime_api.h>
#endif

namespace {

using namespace serrate;  // NOLINT(google-build-using-namespace): as a program of one file may

constexpr std::int64_t kItems = 5000;
constexpr std::int64_t kCountries = 40;
constexpr std::int64_t kDim = 16;
constexpr std::int64_t kBatchSize = 512;  // of all ranks together
constexpr std::int64_t kReportSteps = 50;
constexpr std::int64_t kCheckpointSteps = 100;

double draw(std::uint32_t stream, std::int64_t index) {
  return random_uniform(/*seed=*/7, RandomUse::kGenerate, stream,
                        static_cast<std::uint64_t>(index));
}

struct Batch {
  KeyedJaggedTensor features;
  std::vector<float> clicks;  // [batch_size], 0 or 1
};

// Samples [begin, end) of an endless data set. Every item and country has a hidden appeal; the mean
// appeal of a sample gives the odds of a click.
Batch make_batch(std::int64_t begin, std::int64_t end, const Stream& stream) {
  const auto appeal = [](std::uint32_t table, std::int64_t id) { return 2 * draw(table, id) - 1; };
  std::vector<std::vector<std::int64_t>> values(2), offsets(2, {0});
  Batch batch;
  for (std::int64_t sample = begin; sample < end; ++sample) {
    const auto country = static_cast<std::int64_t>(draw(2, sample) * kCountries);
    const auto length =
        static_cast<std::int64_t>(draw(3, sample) * 8);  // 0 to 7: bags may be empty
    double odds = appeal(1, country);
    for (std::int64_t i = 0; i < length; ++i) {
      const auto item = static_cast<std::int64_t>(std::pow(draw(4, 8 * sample + i), 3) * kItems);
      values[0].push_back(item);
      odds += 3 * appeal(0, item) / static_cast<double>(length);
    }
    values[1].push_back(country);
    for (const std::size_t f : {0, 1}) {
      offsets[f].push_back(static_cast<std::int64_t>(values[f].size()));
    }
    batch.clicks.push_back(draw(5, sample) < 1 / (1 + std::exp(-3 * odds)) ? 1.0f : 0.0f);
  }
  batch.features = KeyedJaggedTensor::from_offsets({"history", "country"}, values, offsets, stream);
  return batch;
}

// Turns logits into their gradient; returns the sum of the samples' losses.
double logistic_loss(std::span<float> logits, std::span<const float> clicks) {
  double loss = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const double logit = logits[i];
    loss += std::log1p(std::exp(-std::abs(logit))) + std::max(logit, 0.0) - clicks[i] * logit;
    logits[i] = static_cast<float>((1 / (1 + std::exp(-logit)) - clicks[i]) / kBatchSize);
  }
  return loss;
}

// The stream of a rank and memory for its logits.
class Resources {
 public:
  explicit Resources(Device device) {
#ifdef CUSTOM_TRAINER_WITH_CUDA
    if (device.type == DeviceType::kCuda) {
      const auto succeed = [](cudaError_t error) {
        if (error != cudaSuccess) throw Error(cudaGetErrorString(error));
      };
      succeed(cudaSetDevice(device.index));
      cudaStream_t stream = nullptr;
      succeed(cudaStreamCreate(&stream));
      own_stream_.reset(stream);
      stream_ = Stream::wrap(stream, device);
      void* memory = nullptr;
      succeed(cudaMalloc(&memory, kBatchSize * sizeof(float)));
      own_memory_.reset(memory);
      logits_ = {static_cast<float*>(memory), static_cast<std::size_t>(kBatchSize)};
      return;
    }
#endif
    stream_ = Stream(device);
    buffer_.resize_discard(kBatchSize, stream_);
    logits_ = buffer_.span();
  }

  const Stream& stream() const { return stream_; }
  DeviceSpan<float> logits() const { return logits_; }

 private:
#ifdef CUSTOM_TRAINER_WITH_CUDA
  struct Release {
    void operator()(cudaStream_t stream) const { cudaStreamDestroy(stream); }
    void operator()(void* memory) const { cudaFree(memory); }
  };
  std::unique_ptr<std::remove_pointer_t<cudaStream_t>, Release> own_stream_;
  std::unique_ptr<void, Release> own_memory_;
#endif
  Stream stream_;  // goes before what it wraps
  Buffer<float> buffer_;
  DeviceSpan<float> logits_;
};

// One logit: a weight for every column of the looked-up rows, and a bias.
class ClickModel {
 public:
  ClickModel(const std::vector<EmbeddingTable>& tables, const ShardingPlan& plan,
             const EmbeddingOptions& options, Communicator& communicator,
             const Resources& resources)
      : stream_(resources.stream()),
        communicator_(communicator),
        embedding_(tables, plan, options, communicator, stream_),
        num_lookups_(static_cast<std::int64_t>(embedding_.lookups().size())),
        all_logits_(resources.logits()),
        dense_(first_weights(), stream_) {}

  // Forward, backward and update; returns the sum of this rank's losses.
  double train_step(const Batch& batch, std::int64_t step) {
    embedding_.input_dist(batch.features, exchange_, stream_);
    embedding_.lookup(exchange_, stream_);
    embedding_.output_dist(exchange_, stream_);
    const double loss = forward_backward(batch.clicks);
    embedding_.output_dist_backward(exchange_, stream_);
    embedding_.update(exchange_, step, stream_);

    communicator_.all_reduce_sum<float>("dense_gradients", d_dense_.span(), stream_);
    adamw_update({.parameters = dense_.span(),
                  .first_moment = first_moment_.span(),
                  .second_moment = second_moment_.span(),
                  .gradients = d_dense_.span(),
                  .decay = decay_.span(),
                  .options = {.learning_rate = 0.01f},
                  .step = step},
                 stream_);
    return loss;
  }

  // All that the training has learned. What batch a step reads is a function of the step here; the
  // position of a reader that remembers it would be one more integer.
  CheckpointState checkpoint_state() {
    const auto row = [](Buffer<float>& values) { return values.matrix(1, values.size()); };
    return {.embedding = embedding_,
            .tensors = {{"dense", row(dense_)},
                        {"dense.first_moment", row(first_moment_)},
                        {"dense.second_moment", row(second_moment_)}},
            .integers = {{"batch_size", kBatchSize}}};
  }

 private:
  std::int64_t columns() const { return num_lookups_ * kDim; }

  std::vector<float> first_weights() const {
    std::vector<float> weights(static_cast<std::size_t>(columns() + 1));
    for (std::int64_t c = 0; c < columns(); ++c) {
      weights[static_cast<std::size_t>(c)] = static_cast<float>(draw(6, c) - 0.5);
    }
    return weights;
  }

  double forward_backward(std::span<const float> clicks) {
    const auto batch_size = static_cast<std::int64_t>(clicks.size());
    x_.resize_discard(batch_size * columns(), stream_);
    d_x_.resize_discard(batch_size * columns(), stream_);
    const DeviceSpan<float> logits = all_logits_.first(clicks.size());
    const DeviceMatrix<float> weight = dense_.matrix(1, columns());
    const DeviceMatrix<float> d_weight = d_dense_.matrix(1, columns());
    const DeviceMatrix<float> x = x_.matrix(batch_size, columns());
    const DeviceMatrix<float> d_x = d_x_.matrix(batch_size, columns());
    const DeviceMatrix<float> y(logits, batch_size, 1);
    for (std::int64_t i = 0; i < num_lookups_; ++i) {
      copy_matrix(exchange_.output(i), x.columns(i * kDim, (i + 1) * kDim), stream_);
    }
    linear_forward({.x = x, .weight = weight, .bias = dense_.span().last(1), .y = y}, stream_);
    // The loss is computed on the host: a few numbers of a batch, whatever the device.
    std::vector<float> on_host(clicks.size());
    copy_to_host<float>(logits, on_host, stream_);
    const double loss = logistic_loss(on_host, clicks);
    copy_from_host<float>(on_host, logits, stream_);

    fill_zero(d_dense_.span(), stream_);
    linear_backward({.x = x,
                     .weight = weight,
                     .d_y = y,
                     .d_x = d_x,
                     .d_weight = d_weight,
                     .d_bias = d_dense_.span().last(1)},
                    stream_);
    for (std::int64_t i = 0; i < num_lookups_; ++i) {
      copy_matrix(d_x.columns(i * kDim, (i + 1) * kDim), exchange_.d_output(i), stream_);
    }
    return loss;
  }

  const Stream& stream_;
  Communicator& communicator_;
  ShardedEmbedding embedding_;
  EmbeddingExchange exchange_;
  std::int64_t num_lookups_;
  DeviceSpan<float> all_logits_;  // room for those of a batch
  Buffer<float> x_, d_x_;
  // Weights, then the bias: [columns + 1].
  Buffer<float> dense_;
  Buffer<float> d_dense_ = Buffer<float>::zeros(columns() + 1, stream_);
  Buffer<float> first_moment_ = Buffer<float>::zeros(columns() + 1, stream_);
  Buffer<float> second_moment_ = Buffer<float>::zeros(columns() + 1, stream_);
  Buffer<float> decay_ = Buffer<float>::zeros(columns() + 1, stream_);
};

// The step after which the newest checkpoint was made; 0 when there is none.
std::int64_t resume(CheckpointWriter& checkpoints, ClickModel& model, const Stream& stream) {
  const std::optional<LoadedCheckpoint> loaded =
      checkpoints.resume(model.checkpoint_state(), stream);
  if (!loaded) return 0;
  if (loaded->integers.at("batch_size") != kBatchSize) {
    throw usage_error("the checkpoint was made with another batch size");
  }
  return loaded->step;
}

struct Options {
  int ranks = 2;
  std::int64_t steps = 400;
  std::string directory;        // of checkpoints; empty for none
  std::string device = "auto";  // see choose_device
};

void train(const Options& run, Communicator& communicator) {
  const int world_size = communicator.size();
  const std::vector<EmbeddingTable> tables{
      {.name = "items",
       .num_rows = kItems,
       .dim = kDim,
       .pooling = PoolingType::kMean,
       .features = {"history"}},
      {.name = "countries", .num_rows = kCountries, .dim = kDim, .features = {"country"}}};
  const ShardingPlan plan{world_size,
                          {shard_table(tables[0], ShardingType::kRowWise, world_size),
                           shard_table(tables[1], ShardingType::kDataParallel, world_size)}};
  EmbeddingOptions options;
  options.optimizer = {.type = SparseOptimizer::kRowWiseAdagrad, .learning_rate = 0.1f};
  const Resources resources(choose_device(device_choice_from_string(run.device), communicator));
  const Stream& stream = resources.stream();
  ClickModel model(tables, plan, options, communicator, resources);

  std::optional<CheckpointWriter> checkpoints;
  std::int64_t steps_done = 0;
  if (!run.directory.empty()) {
    checkpoints.emplace(run.directory, /*keep=*/2, communicator);
    steps_done = resume(*checkpoints, model, stream);
  }
  double loss = 0;
  for (std::int64_t step = steps_done + 1; step <= run.steps; ++step) {
    const std::int64_t first = (step - 1) * kBatchSize;
    const std::int64_t begin = first + kBatchSize * communicator.rank() / world_size;
    const std::int64_t end = first + kBatchSize * (communicator.rank() + 1) / world_size;
    loss += model.train_step(make_batch(begin, end, stream), step);
    if (checkpoints) {
      checkpoints->poll();
      if (step % kCheckpointSteps == 0 && step < run.steps) {
        checkpoints->start(step, model.checkpoint_state(), stream);
      }
    }
    if (step % kReportSteps != 0) continue;
    communicator.sum("loss", std::span(&loss, 1));
    if (communicator.rank() == 0) {
      std::printf("step %d loss %.4f\n", static_cast<int>(step),
                  loss / (kReportSteps * kBatchSize));
    }
    loss = 0;
  }
  if (checkpoints && run.steps > steps_done) {
    checkpoints->save(run.steps, model.checkpoint_state(), stream);
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    Options run;
    if (argc > 1) run.ranks = std::atoi(argv[1]);
    if (argc > 2) run.steps = std::atoll(argv[2]);
    if (argc > 3) run.directory = argv[3];
    if (argc > 4) run.device = argv[4];
    run_thread_ranks(run.ranks, std::chrono::seconds(30),
                     [&](Communicator& communicator) { train(run, communicator); });
  } catch (const Error& error) {
    std::fprintf(stderr, "custom_trainer: %s\n", error.what());
    return error.exit_code();
  }
}
