#pragma once

#include <string>

#include "serrate/trainer.h"
#include "src/io/output_file.h"

namespace serrate {

/// Throws Error (usage) when `output` is a file that a training keeps in its directory `run`, or
/// would be among its checkpoints.
void check_outside_run(const NamedPath& output, const std::string& run);

/// Throws Error (usage) when a training would write over what it reads, or its metrics over the
/// rest of the run.
void check_files(const TrainOptions& options);

}  // namespace serrate
