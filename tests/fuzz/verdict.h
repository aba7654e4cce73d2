#pragma once

#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>

#include "serrate/error.h"

namespace serrate {

/// Ends the process: the fuzzer keeps the input.
[[noreturn]] inline void fail(const char* problem, const std::string& detail) {
  std::fprintf(stderr, "%s: %s\n", problem, detail.c_str());
  std::abort();
}

/// What `read` returns; nothing when it refuses the input as a mistake in it. It throws nothing
/// else.
template <typename Read>
auto read_or_refuse(const Read& read) -> std::optional<decltype(read())> {
  try {
    return read();
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kUsage) fail("not the input to blame", error.what());
  } catch (const std::exception& error) {
    fail("not an Error", error.what());
  }
  return std::nullopt;
}

/// `read` gives what it has read in words of its own, which `read_again` has to give too.
template <typename Read, typename ReadAgain>
void check_reader(const Read& read, const ReadAgain& read_again) {
  const std::optional<std::string> written = read_or_refuse(read);
  if (!written) return;
  try {
    if (const std::string again = read_again(*written); again != *written) {
      fail("written otherwise", *written + again);
    }
  } catch (const std::exception& error) {
    fail("does not read what it wrote", error.what() + *written);
  }
}

}  // namespace serrate
