#pragma once

#include <optional>

namespace serrate {

/// Which of its processes this is, if mpirun, or srun with a PMI, started it. Looks at the
/// environment only, so that it can be asked before MPI starts and in a build without MPI.
std::optional<int> launched_rank();

}  // namespace serrate
