#pragma once

#include <string>
#include <string_view>

#include "serrate/trainer.h"

namespace serrate {

/// The effective configuration of a run as JSON: a field for each option that is stored. Numbers
/// have the digits that a user would give, and read back equal.
std::string to_json(const TrainOptions& options);
/// The reverse. Throws Error (usage) that begins with `document` and names a field that is missing,
/// not an option, or not what the option takes.
TrainOptions train_options_from_json(std::string_view json,
                                     std::string_view document = "run configuration");

}  // namespace serrate
