#pragma once

#include <cstdint>

namespace simt {

struct Stack {
  std::uintptr_t begin = 0, end = 0;
};

/// The stack of a thread of the block in a window, behind a page that nothing may touch.
Stack stack_of(unsigned window, unsigned thread);

}  // namespace simt
