#pragma once

#include <cstddef>
#include <cstdint>

#include "tests/support/simt/stream.h"

namespace simt {

struct Asynchronous;

enum class Touch { kRead, kWrite, kAtomic };

/// An access of the kernel thread that runs, before it happens; `code` is where it is made.
void observe(std::uintptr_t address, std::size_t bytes, Touch touch, bool aligned,
             std::uintptr_t code);

/// The same of an operation on an mbarrier, which may touch its memory.
void observe_mbarrier(std::uintptr_t address, std::size_t bytes, Touch touch, bool aligned,
                      std::uintptr_t code);
/// Reports, as a finding of the thread that runs, what it does at a place in the code.
void report_at_code(Kind kind, const std::string& text, std::uintptr_t code);
/// Stops the grid unless an asynchronous operation that the thread issues may touch the memory.
void require_memory(std::uintptr_t address, std::size_t bytes, Touch touch, std::uintptr_t code);
/// An access of an asynchronous operation. Never stops the grid.
void observe_asynchronous(const Asynchronous& operation, std::uintptr_t address, std::size_t bytes,
                          Touch touch);

/// An access of a copy or another operation of the runtime to device or pinned memory. With
/// `written`, the bytes count as written; a copy hands over the state of its source instead.
bool observe_operation(std::uintptr_t address, std::size_t bytes, Touch touch,
                       const Operation& operation);

}  // namespace simt
