#pragma once

#include <string>
#include <vector>

#include "serrate/embedding_table.h"
#include "serrate/train_options.h"
#include "src/data/dataset.h"
#include "src/train/train_step.h"

namespace serrate {

/// The features of a token: the item, then the categorical features asked for. Error (usage) when
/// the dataset lacks one or one has a name that the batch needs itself.
std::vector<std::string> token_features(const Dataset& dataset, const SequenceModelOptions& model);

/// One table per token feature; the item's also serves targets and negatives. With InvalidIds::kOov
/// every table has a last row more than the dataset has ids.
std::vector<EmbeddingTable> tables_of(const Dataset& dataset, const TrainOptions& options);

/// The model of a run on this rank, freshly initialised; collective.
TrainState make_train_state(const Dataset& dataset, const TrainOptions& options, ShardingPlan plan,
                            Communicator& communicator, const Stream& stream);

}  // namespace serrate
