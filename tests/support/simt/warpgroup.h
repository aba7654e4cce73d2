#pragma once

#include "tests/support/simt/grid.h"

namespace simt {

/// setmaxnreg (PTX ISA 9.1, 9.7.19.5), for the warp of the thread that runs: registers that a warp
/// gives up another one takes, and waits for them.
enum class RegisterChange { kLower, kRaise };
void set_registers(RegisterChange change, unsigned registers, const Where& where);

}  // namespace simt
