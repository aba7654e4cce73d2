#pragma once

// To be removed when nothing includes it: launch() is in src/core.
#include "src/core/launch.cuh"
