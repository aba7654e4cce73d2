#pragma once

#include <source_location>
#include <stdexcept>
#include <string>
#include <string_view>

namespace serrate {

/// What a caller can do about an error; each kind is one exit code of the command.
enum class ErrorKind {
  kFailure,    ///< exit code 1: something broke (a file, a device, an invariant)
  kUsage,      ///< exit code 2: an option, a file or a plan is wrong and has to be changed
  kRetryable,  ///< exit code 75: a peer was lost or the job was told to stop; start it again
};

/// The one exception of the library. what() = problem (why): suggestion.
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message, ErrorKind kind = ErrorKind::kFailure)
      : std::runtime_error(message), kind_(kind) {}

  ErrorKind kind() const { return kind_; }

  int exit_code() const {
    switch (kind_) {
      case ErrorKind::kUsage:
        return 2;
      case ErrorKind::kRetryable:
        return 75;
      default:
        return 1;
    }
  }

 private:
  ErrorKind kind_;
};

/// Bad input, found at the edge: a message for the person who can change it.
inline Error usage_error(const std::string& message) {
  return Error(message, ErrorKind::kUsage);
}

[[noreturn]] void fail_check(std::string_view message, const std::source_location& where);

/// An invariant or a precondition of an API call; throws Error with the place if it does not hold.
inline void check(bool holds, std::string_view message,
                  const std::source_location& where = std::source_location::current()) {
  if (!holds) fail_check(message, where);
}

}  // namespace serrate
