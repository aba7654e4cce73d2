#include "serrate/training_windows.h"

#include <fmt/format.h>

#include "serrate/error.h"

namespace serrate {

std::string to_string(TrainingWindows windows) {
  return windows == TrainingWindows::kLatest ? "latest" : "all";
}

TrainingWindows training_windows_from_string(const std::string& name) {
  for (const TrainingWindows windows : {TrainingWindows::kLatest, TrainingWindows::kAll}) {
    if (name == to_string(windows)) return windows;
  }
  throw usage_error(fmt::format("unknown windows \"{}\" (choose latest or all)", name));
}

}  // namespace serrate
