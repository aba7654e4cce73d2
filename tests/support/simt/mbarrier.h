#pragma once

#include <cstdint>

#include "tests/support/simt/grid.h"

namespace simt {

struct Asynchronous;

// mbarrier objects (PTX ISA 9.1, 9.7.13.15). An operation on one that its state does not allow is
// a finding.

void init_mbarrier(void* mbarrier, unsigned arrivals, const Where& where);
void invalidate_mbarrier(void* mbarrier, const Where& where);
/// fence.mbarrier_init
void fence_mbarrier_init();
/// Announces bytes that copies are going to bring.
void expect_bytes(void* mbarrier, unsigned bytes, const Where& where);
void arrive_at_mbarrier(void* mbarrier, const Where& where);
void arrive_expecting_bytes(void* mbarrier, unsigned bytes, const Where& where);
/// Whether the phase of that parity is over, which lets other threads run first.
bool try_wait_for_mbarrier(const void* mbarrier, unsigned parity, const Where& where);
void wait_for_mbarrier(const void* mbarrier, unsigned parity, const Where& where);

/// Stops the grid unless a copy that the thread issues can signal the mbarrier.
void require_mbarrier(const void* mbarrier, std::uintptr_t code, const Where& where);
/// complete_tx: a copy brought bytes.
void complete_bytes(const Asynchronous& copy, std::uintptr_t mbarrier, unsigned bytes);

}  // namespace simt
