#include "src/train/train_step.h"

namespace serrate {
namespace {

std::vector<MatrixView<const float>> outputs(const EmbeddingExchange& exchange,
                                             const std::vector<std::int64_t>& lookups,
                                             const MicroBatch& part) {
  std::vector<MatrixView<const float>> views;
  for (const std::int64_t lookup : lookups) {
    views.push_back(exchange.output(lookup).middle_rows(part.first_token, part.end_token()));
  }
  return views;
}

std::vector<MatrixView<float>> d_outputs(EmbeddingExchange& exchange,
                                         const std::vector<std::int64_t>& lookups,
                                         const MicroBatch& part) {
  std::vector<MatrixView<float>> views;
  for (const std::int64_t lookup : lookups) {
    views.push_back(exchange.d_output(lookup).middle_rows(part.first_token, part.end_token()));
  }
  return views;
}

}  // namespace

TrainState::TrainState(std::vector<EmbeddingTable> tables, ShardingPlan plan,
                       const TrainOptions& options, Communicator& comm, const Stream& step_stream)
    : communicator(comm),
      stream(step_stream),
      embedding(std::move(tables), std::move(plan),
                {.optimizer = options.sparse_optimizer,
                 .invalid_ids = options.invalid_ids,
                 .seed = options.seed},
                comm, step_stream),
      encoder(options.model, options.seed, step_stream),
      head(options.model),
      dense_optimizer(options.dense_optimizer) {
  for (const EmbeddingTable& table : embedding.tables()) {
    event_lookups.push_back(embedding.lookup_index(table.name, table.name));
  }
  const std::string& item = embedding.tables().front().name;
  target_lookup = embedding.lookup_index(kTargetFeature, item);
  negative_lookup = embedding.lookup_index(kNegativeFeature, item);
}

// The life of a batch; see docs/architecture.md for the shapes.
TrainStepResult train_step(TrainState& s, const NextItemBatch& batch, std::int64_t step) {
  const Stream& stream = s.stream;
  s.times.start();

  std::int64_t total_tokens = batch.num_tokens();
  s.communicator.all_reduce_sum<std::int64_t>("tokens", {&total_tokens, 1}, stream);
  const float d_loss = total_tokens > 0 ? 1 / static_cast<float>(total_tokens) : 0;
  s.times.lap("wait for peers", stream);

  s.embedding.input_dist(batch.features, s.exchange, stream);
  s.times.lap("input_dist", stream);

  s.embedding.lookup(s.exchange, stream);
  s.times.lap("lookup", stream);

  s.embedding.output_dist(s.exchange, stream);
  s.times.lap("output_dist", stream);

  const MatrixView<float> d_negatives = s.exchange.d_output(s.negative_lookup);
  fill_zero<float>(
      {d_negatives.data, static_cast<std::size_t>(d_negatives.rows * d_negatives.cols)}, stream);
  fill_zero(s.encoder.parameters().gradients(), stream);
  s.losses.resize_discard(std::ssize(batch.micro_batches), stream);
  for (std::size_t m = 0; m < batch.micro_batches.size(); ++m) {
    const MicroBatch& part = batch.micro_batches[m];
    const TokenBatch tokens = batch.tokens(part);
    const MatrixView<const float> hidden = s.encoder.forward(
        outputs(s.exchange, s.event_lookups, part), tokens, step, EncoderMode::kTrain, stream);
    s.times.lap("encoder", stream);

    const MatrixView<float> d_hidden{
        s.d_hidden.resize_discard(hidden.rows * hidden.cols, stream).data(), hidden.rows,
        hidden.cols};
    const auto tokens_of = [&](auto rows) {
      return rows.middle_rows(part.first_token, part.end_token());
    };
    s.head.forward_backward(
        {.hidden = hidden,
         .targets = tokens_of(s.exchange.output(s.target_lookup)),
         .negatives = s.exchange.output(s.negative_lookup),
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

  s.embedding.output_dist_backward(s.exchange, stream);
  s.times.lap("output_dist backward", stream);

  s.embedding.update(s.exchange, step, stream);
  s.times.lap("embedding update", stream);

  s.communicator.all_reduce_sum("dense_gradients", s.encoder.parameters().gradients(), stream);
  s.times.lap("dense all-reduce", stream);

  s.encoder.parameters().update(s.dense_optimizer, step, stream);
  s.times.lap("dense update", stream);

  double loss = 0;
  for (const double part : s.losses.to_host(stream)) loss += part;
  s.communicator.all_reduce_sum<double>("loss", {&loss, 1}, stream);
  s.times.lap("loss all-reduce", stream);
  return {.loss = total_tokens > 0 ? loss / static_cast<double>(total_tokens) : 0,
          .tokens = total_tokens};
}

}  // namespace serrate
