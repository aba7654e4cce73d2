#pragma once

#include <string>

namespace serrate {

/// What tells this machine from the others of a job, until it is started again.
std::string machine_identity();

}  // namespace serrate
