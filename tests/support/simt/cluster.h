#pragma once

#include <cstdint>
#include <string>

#include "tests/support/simt/grid.h"

namespace simt {

struct Block;
struct Thread;
struct Use;

// Clusters of blocks (PTX ISA 9.1, 9.7.13.3, and mapa in 9.7.9.23). Blocks without one are a
// cluster each.

unsigned cluster_rank();
unsigned cluster_size();
/// barrier.cluster
void arrive_at_cluster(const Where& where);
void wait_for_cluster(const Where& where);
/// Where another block of the cluster has what this one has at an address of dynamic shared memory.
std::uintptr_t map_shared(std::uintptr_t shared, unsigned rank, const Where& where);

/// " of block (1, 0, 0)"; empty for the one that runs.
std::string owner_name(const Block& owner);
/// Whether a thread of the block waits for something else than the barrier of the cluster.
bool holds_up_cluster(const Block* block);
/// A thread that exits is waited for no more.
void leave_cluster(Block& block, const Thread& thread);
/// A thread of the running block's order uses the shared memory of a block.
void note_use(Block& owner, unsigned number, const Use& use);
/// Reports the uses of the block's shared memory by others that are not known to it as it ends.
void report_late_uses(Block& block);

}  // namespace simt
