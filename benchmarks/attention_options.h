#pragma once

namespace serrate {

/// Causal self-attention over 8 sequences of 1,024, 4 heads x 64, with every option in turn, on one
/// thread: a JSON line each of the processor time, the least of `rounds`, and over that of none.
void run_option_cases(int rounds);

}  // namespace serrate
