#pragma once

#include "kernels/attention/cpu/schedule.h"
#include "kernels/attention/cpu/tiles.h"
#include "kernels/attention/view.h"

namespace serrate {

/// What the tasks of one forward share.
struct ForwardCall {
  const AttentionView& args;
  const AttentionTiles& tiles;
  float* partials;
};

}  // namespace serrate
