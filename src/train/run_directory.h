#pragma once

#include <cstdio>
#include <memory>
#include <string>

#include "serrate/communicator.h"
#include "serrate/trainer.h"

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

/// One JSON line per step: step, epoch, loss (17 significant digits), tokens, seconds since the
/// start. Each line is flushed, so that a killed run keeps its lines.
class MetricsFile {
 public:
  explicit MetricsFile(const std::string& path);
  void write(const StepResult& result);

 private:
  std::string path_;
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file_;
  double start_seconds_;
};

/// Error (usage) naming the first line of `text` that differs between ranks, and the rank. Options
/// that may differ have to be left out of it.
void require_agreement(Communicator& communicator, const std::string& what,
                       const std::string& text);

}  // namespace serrate
