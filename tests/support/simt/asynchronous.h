#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "tests/support/simt/block.h"

namespace simt {

// Operations beside the threads. For what orders memory each is a thread of its own: it knows what
// its issuer knew, and who waits for it learns what it did.

using Effect = std::function<void(Asynchronous&)>;

/// Issues an operation of the thread that runs, or of several. Its effect may come before this
/// returns; that of `after` comes first.
std::shared_ptr<Asynchronous> issue(const char* name, std::uintptr_t code, Effect effect,
                                    std::shared_ptr<Asynchronous> after = nullptr,
                                    const std::vector<unsigned>& issuers = {});
/// The effect comes now, if it has not yet.
void finish(Block& block, const std::shared_ptr<Asynchronous>& operation);
/// One of those under way; false when there is none.
bool finish_one(Block& block);
/// The thread that runs waits for operations: their effects come, and are known to it.
void wait_for(const std::vector<std::shared_ptr<Asynchronous>>& operations);
/// From now on the target of an operation may change at any time.
void unsettle(std::uintptr_t target, unsigned bytes);

}  // namespace simt
