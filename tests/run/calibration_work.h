#pragma once

#include "src/run/calibrate.h"

namespace serrate {

/// Takes the simulated device a moment.
constexpr CalibrationWork kSmallWork{.copy_bytes = 1 << 16,
                                     .host_copy_bytes = 1 << 14,
                                     .table_bytes = 1 << 17,
                                     .num_ids = 64,
                                     .message_bytes = 1 << 10,
                                     .repeats = 2,
                                     .calls = 3};

}  // namespace serrate
