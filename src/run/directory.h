#pragma once

#include <string>

#include "serrate/communicator.h"

namespace serrate {

// What a run leaves in its directory.
inline std::string config_path(const std::string& run) {
  return run + "/config.json";
}
inline std::string plan_path(const std::string& run) {
  return run + "/plan.json";
}
inline std::string metrics_path(const std::string& run) {
  return run + "/metrics.jsonl";
}
inline std::string checkpoint_path(const std::string& run) {
  return run + "/checkpoint";
}

/// Renames a run directory that holds anything to a free name of RUN.1, .2, ... and says so; no
/// other process may be training in it.
void move_run_aside(const std::string& run);

/// Error (usage) naming the first line of `text` that differs between ranks, and the rank. Options
/// that may differ have to be left out of it.
void require_agreement(Communicator& communicator, const std::string& what,
                       const std::string& text);

}  // namespace serrate
