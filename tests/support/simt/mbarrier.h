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
/// The mbarrier that another block of the cluster has at this address.
void arrive_at_mbarrier_of(unsigned rank, const void* mbarrier, const Where& where);
void arrive_expecting_bytes(void* mbarrier, unsigned bytes, const Where& where);
/// Whether the phase of that parity is over, which lets other threads run first.
bool try_wait_for_mbarrier(const void* mbarrier, unsigned parity, const Where& where);
/// kBlock: what threads and copies of other blocks did is not acquired.
enum class Scope { kBlock, kCluster };
void wait_for_mbarrier(const void* mbarrier, unsigned parity, const Where& where,
                       Scope scope = Scope::kBlock);

/// Stops the grid unless a copy that the thread issues can signal the mbarrier, of any block of the
/// cluster.
void require_mbarrier(const void* mbarrier, std::uintptr_t code, const Where& where);
/// complete_tx: a copy brought bytes.
void complete_bytes(const Asynchronous& copy, std::uintptr_t mbarrier, unsigned bytes);

}  // namespace simt
