#pragma once

#include "src/cli/options.h"

namespace serrate::cli {

/// Each runs one command and returns the exit code of the process; throws Error.
int convert_command(const Arguments& arguments);
int generate_command(const Arguments& arguments);
int calibrate_command(const Arguments& arguments);
int plan_command(const Arguments& arguments);
int train_command(const Arguments& arguments);
int evaluate_command(const Arguments& arguments);
int inspect_command(const Arguments& arguments);

}  // namespace serrate::cli
