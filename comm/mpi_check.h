#pragma once

#include <fmt/format.h>
#include <mpi.h>

#include <source_location>
#include <string_view>

#include "serrate/error.h"

namespace serrate {

/// Throws Error if an MPI call did not succeed. (Open MPI does not report lost peers this way.)
inline void mpi_check(int code,
                      const std::source_location& where = std::source_location::current()) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(code, text, &length);
  throw Error(fmt::format("MPI call failed ({}, in {})",
                          std::string_view(text, static_cast<std::size_t>(length)),
                          where.function_name()));
}

}  // namespace serrate
