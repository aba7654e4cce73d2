#include "comm/together.h"

#include <fmt/format.h>

#include <new>

namespace serrate {
namespace {

// An outcome on its way to the other ranks: empty when all went well, else the kind and the
// message.
std::string outcome_of(const std::function<void()>& work) {
  try {
    work();
    return "";
  } catch (const Error& error) {
    return fmt::format("{}{}", static_cast<int>(error.kind()), error.what());
  } catch (const std::bad_alloc&) {
    return fmt::format("{}memory ran out", static_cast<int>(ErrorKind::kFailure));
  } catch (const std::exception& error) {
    return fmt::format("{}{}", static_cast<int>(ErrorKind::kFailure), error.what());
  }
}

}  // namespace

void together(Communicator& communicator, std::string_view operation,
              const std::function<void()>& work) {
  const auto outcomes = communicator.gather_strings(operation, outcome_of(work));
  for (std::size_t r = 0; r < outcomes.size(); ++r) {
    if (outcomes[r].empty()) continue;
    const auto kind = static_cast<ErrorKind>(outcomes[r][0] - '0');
    const std::string message = outcomes[r].substr(1);
    throw Error(outcomes.size() == 1 ? message : fmt::format("rank {}: {}", r, message), kind);
  }
}

}  // namespace serrate
