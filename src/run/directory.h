#pragma once

#include <string>

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

}  // namespace serrate
