#pragma once

#include <string>

#include "serrate/trainer.h"

namespace serrate {

/// The effective configuration of a run as JSON, one key per option of `serrate train`.
std::string to_json(const TrainOptions& options);
/// The reverse; Error (usage) naming a missing or wrong field.
TrainOptions train_options_from_json(const std::string& json);

}  // namespace serrate
