#pragma once

#include <string>

namespace serrate {

/// Which stretches of a user's training events are samples.
enum class TrainingWindows {
  kLatest,  ///< the latest max_length + 1
  kAll,     ///< all: consecutive windows of max_length + 1, counted from the latest event, that
            ///< overlap by one event, so that every event but a user's first is a target once
};

/// "latest", "all"; from_string throws Error (usage) otherwise.
std::string to_string(TrainingWindows windows);
TrainingWindows training_windows_from_string(const std::string& name);

}  // namespace serrate
