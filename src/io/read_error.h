#pragma once

#include "serrate/error.h"

namespace serrate {

/// The kind of an Error about a file that cannot be opened or read, by errno: kUsage when that is
/// the file's fault (it is missing, of another type, not ours to read, or its bytes are lost),
/// kFailure when it says nothing about the file (no descriptor or memory is left).
ErrorKind kind_of_read_error(int error);
/// The same of a file of ours, of which kUsage says that it is damaged: what the system does not
/// permit is kFailure too.
ErrorKind kind_of_damage(int error);

using ReadErrorKind = ErrorKind (*)(int error);

}  // namespace serrate
