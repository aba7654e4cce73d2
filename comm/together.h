#pragma once

#include <functional>
#include <string_view>

#include "serrate/communicator.h"

namespace serrate {

/// Runs `work` on every rank. When it throws on some of them, every rank throws the Error of the
/// first such rank, with its kind, so that none is left waiting for the others.
void together(Communicator& communicator, std::string_view operation,
              const std::function<void()>& work);

}  // namespace serrate
