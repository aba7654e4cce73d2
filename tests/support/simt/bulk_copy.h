#pragma once

#include <cuda.h>

#include <cstddef>

#include "tests/support/simt/grid.h"

namespace simt {

struct Block;

// Bulk copies (PTX ISA 9.1, 9.7.9.25.4 and .5): of consecutive bytes, and of boxes of a tensor.

/// Brings bytes to shared memory, and signals an mbarrier.
void load_bulk(void* shared, const void* global, unsigned bytes, void* mbarrier,
               const Where& where);
void load_box(void* shared, const CUtensorMap* map, unsigned rank, const int* coordinates,
              void* mbarrier, const Where& where);
/// The same for each block of the cluster whose bit is in `blocks`, by the same addresses there.
void load_box_to(unsigned blocks, void* shared, const CUtensorMap* map, unsigned rank,
                 const int* coordinates, void* mbarrier, const Where& where);

/// From this block's shared memory to what block `rank` of the cluster has at the address `to`,
/// whose mbarrier it signals.
void copy_bulk_to(unsigned rank, void* to, const void* shared, unsigned bytes, void* mbarrier,
                  const Where& where);
/// The same of a value in registers (st.async).
void store_async(unsigned rank, void* to, const void* value, unsigned bytes, void* mbarrier,
                 const Where& where);

enum class BulkWrite { kStore, kAdd };
/// From shared memory, as part of the group that the thread commits next. kAdd: of floats.
void store_bulk(BulkWrite write, void* global, const void* shared, unsigned bytes,
                const Where& where);
void store_box(BulkWrite write, const CUtensorMap* map, unsigned rank, const int* coordinates,
               const void* shared, const Where& where);
void commit_bulk();
/// Until all but the youngest groups have read their sources, or are done.
enum class BulkWait { kRead, kDone };
void wait_for_bulk(BulkWait what, unsigned pending);

/// Copies that nobody waited for when the block ends.
void report_left_behind(Block& block);

}  // namespace simt
