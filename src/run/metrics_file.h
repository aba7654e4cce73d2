#pragma once

#include <cstdint>
#include <string>

#include "serrate/trainer.h"
#include "src/io/file_descriptor.h"

namespace serrate {

/// A JSON line a step: step, epoch, loss (17 significant digits), tokens, seconds of training. A
/// line is written in one piece as soon as it is known, so that a killed run keeps its lines.
class MetricsFile {
 public:
  /// Goes on after the line of `steps_done`: those that come after it are cut off, for their steps
  /// are done again. When no step is done, or the file is not of a run, what is there is moved to
  /// PATH.1, .2, ...; so is a file in which a line before that one is damaged or out of order, and
  /// its good lines are written anew. Says on stderr what it does, and which steps have no line. A
  /// terminal, a pipe or a device is written as it is.
  MetricsFile(const std::string& path, std::int64_t steps_done);

  void write(const StepResult& result);
  /// Makes the lines so far durable. May be called on another thread than write().
  void sync();

 private:
  std::string path_;
  bool is_plain_ = false;
  FileDescriptor file_;
  double start_seconds_ = 0;
};

}  // namespace serrate
