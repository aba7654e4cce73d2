#pragma once

#include <map>
#include <string>

#include "serrate/checkpoint.h"
#include "serrate/trainer.h"
#include "src/train/train_step.h"

namespace serrate {

/// What a run's checkpoint says of it, beside the values: its options and its dataset.
struct RunDescription {
  TrainOptions options;
  std::string dataset_digest;  // Dataset::digest()
};
std::map<std::string, std::string> to_texts(const RunDescription& run);
/// Error (usage) naming what is missing or wrong; the checkpoint may be of a custom trainer.
RunDescription run_from_texts(const std::map<std::string, std::string>& texts,
                              const std::string& directory);

/// Throws Error (usage) naming the first option that differs and decides what the model is or the
/// order of the data, with both values.
void check_same_run(const RunDescription& saved, const RunDescription& now);
/// Throws Error (usage) with both digests unless they are the same.
void check_same_dataset(const RunDescription& saved, const RunDescription& now);

/// The state of a run on this rank, for saving and loading.
CheckpointState checkpoint_state(TrainState& state);
/// What of it evaluation needs.
CheckpointState weights_of(TrainState& state);

}  // namespace serrate
