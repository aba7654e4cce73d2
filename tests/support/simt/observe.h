#pragma once

#include <cstddef>
#include <cstdint>

#include "tests/support/simt/stream.h"

namespace simt {

enum class Touch { kRead, kWrite, kAtomic };

/// An access of the kernel thread that runs, before it happens; `code` is where it is made.
void observe(std::uintptr_t address, std::size_t bytes, Touch touch, bool aligned,
             std::uintptr_t code);

/// An access of a copy or another operation of the runtime to device or pinned memory. With
/// `written`, the bytes count as written; a copy hands over the state of its source instead.
bool observe_operation(std::uintptr_t address, std::size_t bytes, Touch touch,
                       const Operation& operation);

}  // namespace simt
