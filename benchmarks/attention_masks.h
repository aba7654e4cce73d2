#pragma once

#include <cstdint>

namespace serrate {

/// One sequence of `length` tokens under every mask, on one thread, in turn: a JSON line each of
/// the share of tiles that are not empty and of the processor time, the least of `rounds`, beside
/// that of a full mask; and the time that it took to make bits of a dense mask.
void run_mask_cases(std::int64_t length, int rounds);

}  // namespace serrate
