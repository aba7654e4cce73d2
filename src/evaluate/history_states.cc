#include "src/evaluate/history_states.h"

#include "serrate/kernels/copy_runs.h"

namespace serrate {

TrainOptions evaluation_options(TrainOptions run, int world_size) {
  run.reproducible = true;
  run.virtual_ranks = world_size;  // nothing is summed over them
  return run;
}

Buffer<float> history_states(TrainState& state, const NextItemBatch& batch) {
  const Stream& stream = state.stream;
  state.embedding.input_dist(batch.features, state.exchange, stream);
  state.embedding.lookup(state.exchange, stream);
  state.embedding.output_dist(state.exchange, stream);
  const std::int64_t dim = state.exchange.output(state.event_lookups.front()).cols;
  std::int64_t num_sequences = 0;
  for (const MicroBatch& part : batch.micro_batches) num_sequences += part.num_sequences();
  Buffer<float> states(num_sequences * dim, stream);
  DeviceSpan<float> rest = states.span();
  for (const MicroBatch& part : batch.micro_batches) {
    std::vector<DeviceMatrix<const float>> features;
    for (const std::int64_t lookup : state.event_lookups) {
      features.push_back(
          state.exchange.output(lookup).middle_rows(part.first_token, part.end_token()));
    }
    const DeviceMatrix<const float> hidden =
        state.encoder.forward(features, batch.tokens(part), 0, EncoderMode::kEvaluate, stream);
    const auto offsets = part.sequence_offsets.to_host(stream);
    std::vector<CopyRun<float>> last;
    for (std::size_t s = 1; s < offsets.size(); ++s) {
      check(offsets[s] > offsets[s - 1], "every history has an event");
      last.push_back({hidden.row(offsets[s] - 1), rest.first(hidden.cols)});
      rest = rest.subspan(hidden.cols);
    }
    copy_runs<float>(last, stream);
  }
  return states;
}

}  // namespace serrate
