#pragma once

#include <fcntl.h>
#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <string_view>

#include "serrate/error.h"

namespace serrate {

/// Whether a person can mend it by naming another file.
inline bool is_usage_errno(int error) {
  return error == ENOENT || error == ENOTDIR || error == EACCES || error == EPERM ||
         error == EISDIR || error == EROFS || error == ELOOP || error == ENAMETOOLONG ||
         error == ENXIO || error == ETXTBSY;
}

[[noreturn]] inline void fail_file(std::string_view action, const std::string& path, int error,
                                   ErrorKind kind) {
  throw Error(fmt::format("cannot {} {} ({})", action, path, std::strerror(error)), kind);
}

[[noreturn]] inline void fail_file(std::string_view action, const std::string& path, int error) {
  fail_file(action, path, error, is_usage_errno(error) ? ErrorKind::kUsage : ErrorKind::kFailure);
}

template <typename Call>
auto retry_interrupted(const Call& call) {
  while (true) {
    const auto result = call();
    if (result >= 0 || errno != EINTR) return result;
  }
}

/// A negative number when it failed, with errno.
inline int open_descriptor(const std::string& path, int flags) {
  return retry_interrupted([&] { return ::open(path.c_str(), flags | O_CLOEXEC, 0666); });
}

}  // namespace serrate
