#pragma once

#include <string>

#include "serrate/trainer.h"
#include "src/io/output_file.h"

namespace serrate {

/// Throws Error (usage) when `output` is a file that a training keeps in its directory, or would be
/// among its checkpoints, once it has any.
void check_outside_runs(const NamedPath& output);

/// Throws Error (usage) when a training would write over what it reads, or its metrics over the
/// rest of the run or over a file of another run.
void check_files(const TrainOptions& options);

}  // namespace serrate
