#pragma once

#include <string>
#include <string_view>

#include "serrate/communicator.h"

namespace serrate {

/// Collective. Error (usage), the same on every rank, unless all ranks give the same JSON: it names
/// the first field that differs, behind `what` ("options"; may be empty), and the first rank that
/// differs from rank 0. What may differ between ranks has to be left out of it.
void require_agreement(Communicator& communicator, std::string_view what, const std::string& json);

}  // namespace serrate
