#pragma once

#include <vector>

#include "src/train/next_item_batch.h"
#include "src/train/train_step.h"

namespace serrate {

/// What a run's model is built with to be evaluated: bags are pooled in the order of their ids, so
/// that states have the same bits on any ranks and under any plan.
TrainOptions evaluation_options(TrainOptions run, int world_size);

/// The encoder's state after the last event of each sequence of a history batch, [sequences, dim].
/// A state depends on its sequence and the model alone. Collective.
Buffer<float> history_states(TrainState& state, const NextItemBatch& batch);

}  // namespace serrate
