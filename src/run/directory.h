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

/// Makes a run's directory, or sees that it can be written. With `fresh` one that holds anything is
/// renamed to a free name of RUN.1, .2, ..., which is said; no other process may be training in it.
void make_run_directory(const std::string& run, bool fresh);

}  // namespace serrate
