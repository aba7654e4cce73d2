#pragma once

#include <cstddef>
#include <cstdint>

#include "tests/support/simt/observe.h"

namespace simt {

struct Block;

// Counting. What the lanes of a warp do at one place, each for the n-th time, is one instruction:
// its sectors and its bank conflicts are those of all lanes together.

enum class Space { kGlobal, kShared, kCluster };  // kCluster: of another block

void count_launch(const Block& block);
/// Whether accesses of threads are counted: not before the first reset_counters(), nor while there
/// is an Uncounted.
struct Counting {
  bool is_on = false, is_paused = false;

  bool now() const { return is_on && !is_paused; }
};
inline constinit Counting counting;
void count_access(const Block& block, Space space, Touch touch, std::uintptr_t code,
                  std::uintptr_t address, std::size_t bytes);
/// An access of an asynchronous operation to consecutive bytes; each is an instruction of its own.
void count_bulk_access(Space space, Touch touch, std::uintptr_t address, std::size_t bytes);
void count_tensor_core_operation(const Block& block);
/// The instructions of the block that ends.
void count_block(const Block& block);

/// While one is there, accesses are not counted: they were.
class Uncounted {
 public:
  Uncounted();
  ~Uncounted();
  Uncounted(const Uncounted&) = delete;
  Uncounted& operator=(const Uncounted&) = delete;
};

}  // namespace simt
