#include "src/evaluate/history_states.h"

namespace serrate {

TrainOptions evaluation_options(TrainOptions run, int world_size) {
  run.reproducible = true;
  run.virtual_ranks = world_size;  // nothing is summed over them
  return run;
}

std::vector<float> history_states(TrainState& state, const NextItemBatch& batch) {
  const Stream& stream = state.stream;
  state.embedding.input_dist(batch.features, state.exchange, stream);
  state.embedding.lookup(state.exchange, stream);
  state.embedding.output_dist(state.exchange, stream);
  std::vector<float> rows;
  for (const MicroBatch& part : batch.micro_batches) {
    std::vector<DeviceMatrix<const float>> features;
    for (const std::int64_t lookup : state.event_lookups) {
      features.push_back(
          state.exchange.output(lookup).middle_rows(part.first_token, part.end_token()));
    }
    const DeviceMatrix<const float> hidden =
        state.encoder.forward(features, batch.tokens(part), 0, EncoderMode::kEvaluate, stream);
    const auto offsets = part.sequence_offsets.to_host(stream);
    for (std::size_t s = 1; s < offsets.size(); ++s) {
      rows.resize(rows.size() + hidden.cols);
      copy_to_host(hidden.row(offsets[s] - 1), std::span(rows).last(hidden.cols), stream);
    }
  }
  return rows;
}

}  // namespace serrate
