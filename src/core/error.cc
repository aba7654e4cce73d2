#include "serrate/error.h"

#include <fmt/format.h>

namespace serrate {

void fail_check(std::string_view message, const std::source_location& where) {
  throw Error(fmt::format("{} (in {}, {}:{})", message, where.function_name(), where.file_name(),
                          where.line()));
}

}  // namespace serrate
