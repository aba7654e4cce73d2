// NVTX of the simulated device: ranges of a thread.
#pragma once

extern "C" {

int nvtxRangePushA(const char* message);
int nvtxRangePop();

}  // extern "C"
