#pragma once

#include "serrate/kernels/attention.h"

namespace serrate {

/// Throws Error unless what the host knows of a forward holds together.
void check_forward(const AttentionForward& args);

}  // namespace serrate
