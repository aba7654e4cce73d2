#include "src/io/read_error.h"

#include <cerrno>

namespace serrate {

ErrorKind kind_of_read_error(int error) {
  switch (error) {
    case ENOENT:
    case ENOTDIR:
    case EISDIR:
    case ELOOP:
    case ENAMETOOLONG:
    case ENXIO:
    case EACCES:
    case EPERM:
    case EIO:
    case EBADMSG:
    case EUCLEAN:
    case ESTALE:
      return ErrorKind::kUsage;
    default:
      return ErrorKind::kFailure;
  }
}

ErrorKind kind_of_damage(int error) {
  return error == EACCES || error == EPERM ? ErrorKind::kFailure : kind_of_read_error(error);
}

}  // namespace serrate
