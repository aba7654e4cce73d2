#include "src/train/train_step.h"

#include <numeric>

#include "src/core/profiler_range.h"
#include "src/train/step_report.h"

namespace serrate {
namespace {

std::vector<DeviceMatrix<const float>> outputs(const EmbeddingExchange& exchange,
                                               const std::vector<std::int64_t>& lookups,
                                               const MicroBatch& part) {
  std::vector<DeviceMatrix<const float>> views;
  for (const std::int64_t lookup : lookups) {
    views.push_back(exchange.output(lookup).middle_rows(part.first_token, part.end_token()));
  }
  return views;
}

std::vector<DeviceMatrix<float>> d_outputs(EmbeddingExchange& exchange,
                                           const std::vector<std::int64_t>& lookups,
                                           const MicroBatch& part) {
  std::vector<DeviceMatrix<float>> views;
  for (const std::int64_t lookup : lookups) {
    views.push_back(exchange.d_output(lookup).middle_rows(part.first_token, part.end_token()));
  }
  return views;
}

// Every rank has looked up some of the negatives: counts[r] of their floats.
std::vector<std::int64_t> negative_counts(const TrainState& s, std::int64_t num_negatives,
                                          std::int64_t dim) {
  std::vector<std::int64_t> counts;
  for (int rank = 0; rank < s.communicator.size(); ++rank) {
    counts.push_back(leaves_of_rank(num_negatives, rank, s.communicator.size()).size() * dim);
  }
  return counts;
}

DeviceMatrix<const float> gather_negatives(TrainState& s, std::span<const std::int64_t> counts,
                                           std::int64_t num_negatives) {
  const DeviceMatrix<const float> own = s.exchange.output(s.negative_lookup);
  s.negatives.resize_discard(num_negatives * own.cols, s.stream);
  s.communicator.all_gather<float>("negatives", own.flat(), {s.negatives.span(), counts}, 1,
                                   s.stream);
  return s.negatives.matrix(num_negatives, own.cols);
}

// Beside the embedding's exchange and update, which are queued before: under NCCL, which keeps the
// order of one communicator's collectives, it comes behind those that they have: the exchange, and
// those of the update where it has some. The host waits for those of MPI.
void all_reduce_gradients(TrainState& s) {
  const ProfilerRange range("dense all-reduce");
  s.dense_sum.all_reduce("dense_gradients", s.encoder.parameters().gradients(), s.dense_stream);
  s.stream.wait_for(s.dense_stream);
}

// The forward and backward pass of one share: its gradients and the losses of its micro-batches.
void pass_share(TrainState& s, const NextItemBatch& batch, std::int64_t share, std::int64_t step,
                DeviceMatrix<const float> negatives, float d_loss) {
  const Stream& stream = s.stream;
  const DeviceMatrix<float> d_negatives = s.d_negatives.matrix(negatives.rows, negatives.cols);
  fill_zero(s.d_negatives.span(), stream);
  fill_zero(s.encoder.parameters().gradients(), stream);
  for (std::int64_t m = batch.share_begins[share]; m < batch.share_begins[share + 1]; ++m) {
    const MicroBatch& part = batch.micro_batches[m];
    const TokenBatch tokens = batch.tokens(part);
    const DeviceMatrix<const float> hidden = s.encoder.forward(
        outputs(s.exchange, s.event_lookups, part), tokens, step, EncoderMode::kTrain, stream);
    s.times.lap("encoder", stream);

    s.d_hidden.resize_discard(hidden.rows * hidden.cols, stream);
    const DeviceMatrix<float> d_hidden = s.d_hidden.matrix(hidden.rows, hidden.cols);
    const auto tokens_of = [&](auto rows) {
      return rows.middle_rows(part.first_token, part.end_token());
    };
    s.head.forward_backward(
        {.hidden = hidden,
         .targets = tokens_of(s.exchange.output(s.target_lookup)),
         .negatives = negatives,
         .target_ids = batch.target_ids.span().subspan(part.first_token, part.num_tokens),
         .negative_ids = batch.negative_ids.span(),
         .d_loss = d_loss,
         .d_hidden = d_hidden,
         .d_targets = tokens_of(s.exchange.d_output(s.target_lookup)),
         .d_negatives = d_negatives},
        s.losses.span().subspan(m, 1), stream);
    s.times.lap("head", stream);

    s.encoder.backward(d_hidden, d_outputs(s.exchange, s.event_lookups, part), tokens, stream);
    s.times.lap("encoder backward", stream);
  }
}

}  // namespace

TrainState::TrainState(std::vector<EmbeddingTable> tables, ShardingPlan plan,
                       const TrainOptions& options, Communicator& comm, const Stream& step_stream)
    : communicator(comm),
      stream(step_stream),
      input_stream(step_stream.device(), step_stream.num_threads()),
      dense_stream(step_stream.device(), step_stream.num_threads()),
      last_begun(step_stream.device()),
      embedding(
          std::move(tables), std::move(plan),
          {.optimizer = options.sparse_optimizer,
           .invalid_ids = options.invalid_ids,
           .seed = options.seed,
           .split_bags = options.reproducible ? SplitBags::kIdOrder : SplitBags::kPartialSums},
          comm, step_stream),
      encoder(options.model, options.seed, step_stream),
      head(options.model),
      dense_optimizer(options.dense_optimizer),
      dense_sum(batch_shares(options, comm.rank(), comm.size()).count, comm),
      negatives_sum(batch_shares(options, comm.rank(), comm.size()).count, comm) {
  for (const EmbeddingTable& table : embedding.tables()) {
    event_lookups.push_back(embedding.lookup_index(table.name, table.name));
  }
  const std::string& item = embedding.tables().front().name;
  target_lookup = embedding.lookup_index(kTargetFeature, item);
  negative_lookup = embedding.lookup_index(kNegativeFeature, item);
}

// Memory of a stream goes in its order, behind what may use it on another one. Losses may be on
// their way to the host.
TrainState::~TrainState() {
  try {
    stream.wait_for(dense_stream);
    input_stream.wait_for(stream);
    stream.synchronize();
  } catch (const Error&) {  // NOLINT(bugprone-empty-catch): nothing runs on a failed device
  }
}

std::int64_t count_tokens(const NextItemBatch& batch, Communicator& communicator) {
  std::int64_t tokens = batch.num_tokens();
  communicator.sum("tokens", std::span(&tokens, 1));
  return tokens;
}

// The buffers are those of the step before the one on its way: the time begins when they are free.
void prepare_batch(TrainState& s, const NextItemBatch& batch) {
  s.input_stream.wait_for(batch.is_on_device);
  s.input_stream.wait_for(s.last_begun);
  s.times.start(s.input_stream);
  s.embedding.input_dist(batch.features, s.ahead, s.input_stream);
  s.times.lap("input_dist", s.input_stream);
}

// The life of a batch; see docs/architecture.md for the shapes.
void train_step(TrainState& s, const NextItemBatch& batch, std::int64_t total_tokens,
                std::int64_t step) {
  const Stream& stream = s.stream;
  const auto num_shares = std::ssize(batch.share_begins) - 1;
  check(num_shares == s.dense_sum.leaves().size(), "a batch has the shares of its rank");
  const float d_loss = total_tokens > 0 ? 1 / static_cast<float>(total_tokens) : 0;
  s.last_begun.record(stream);
  s.exchange.take(s.ahead, stream);
  s.times.start(stream);

  s.embedding.lookup(s.exchange, stream);
  s.times.lap("lookup", stream);

  s.embedding.output_dist(s.exchange, stream);
  const std::int64_t num_negatives = batch.negative_ids.size();
  const std::vector<std::int64_t> counts =
      negative_counts(s, num_negatives, s.exchange.output(s.negative_lookup).cols);
  const DeviceMatrix<const float> negatives = gather_negatives(s, counts, num_negatives);
  s.times.lap("output_dist", stream);

  const DeviceSpan<float> gradients = s.encoder.parameters().gradients();
  s.d_negatives.resize_discard(negatives.rows * negatives.cols, stream);
  s.losses.resize_discard(std::ssize(batch.micro_batches), stream);
  for (std::int64_t share = 0; share < num_shares; ++share) {
    pass_share(s, batch, share, step, negatives, d_loss);
    const ProfilerRange range("sums over shares");
    s.dense_sum.add_leaf(gradients, stream);
    s.negatives_sum.add_leaf(s.d_negatives.span(), stream);
    s.times.lap("sums over shares", stream);
  }
  s.dense_stream.wait_for(stream);

  s.negatives_sum.reduce_scatter("d_negatives", s.d_negatives.span(), counts,
                                 s.exchange.d_output(s.negative_lookup).flat(), stream);
  s.embedding.output_dist_backward(s.exchange, stream);
  // What goes through nodes has communicators of its own, whose kernels must not wait for peers
  // beside those of the all-reduce: see send_after(). Those of the update may be queued beside it
  // as long as they are of the same communicator, s.communicator, as the all-reduce.
  if (s.embedding.through_nodes()) s.dense_stream.wait_for(stream);
  s.times.lap("output_dist backward", stream);

  s.embedding.update(s.exchange, step, stream);
  s.times.lap("embedding update", stream);

  all_reduce_gradients(s);
  s.ahead.send_after(stream);
  s.times.lap("dense all-reduce", stream);

  s.encoder.parameters().update(s.dense_optimizer, step, stream);
  s.times.lap("dense update", stream);

  HostBuffer<double>& losses = s.losses_on_host[step % 2];
  losses.resize_discard(s.losses.size(), stream.device());
  copy_async<double>(s.losses.span(), losses, 0, stream);
}

// Over the micro-batches of each share in order.
std::vector<double> share_losses(const TrainState& s, const NextItemBatch& batch,
                                 std::int64_t step) {
  const std::span<const double> losses = s.losses_on_host[step % 2].span();
  std::vector<double> own;
  for (std::size_t share = 0; share + 1 < batch.share_begins.size(); ++share) {
    own.push_back(std::accumulate(losses.begin() + batch.share_begins[share],
                                  losses.begin() + batch.share_begins[share + 1], 0.0));
  }
  return own;
}

TrainStepResult train_step(TrainState& s, const NextItemBatch& batch, std::int64_t step) {
  s.times.start(s.stream);
  const std::int64_t tokens = count_tokens(batch, s.communicator);
  s.times.lap("wait for peers", s.stream);
  prepare_batch(s, batch);
  train_step(s, batch, tokens, step);
  s.stream.synchronize();
  const std::vector<double> losses = share_losses(s, batch, step);
  s.times.start(s.stream);
  const StepTotals totals = exchange_reports({.losses = losses, .words = {}}, s.communicator);
  s.times.lap("step report", s.stream);
  return {.loss = mean_loss(totals.loss, tokens), .tokens = tokens};
}

}  // namespace serrate
