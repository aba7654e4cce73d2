# OpenBLAS without threads of its own, as the target SerialBLAS::SerialBLAS. Serrate's threads call it;
# threads that OpenBLAS starts beside them are never used, and hang at exit where memory is short.
# Debian has the variants side by side under one soname, so the directory decides: programs get it as
# their rpath. Elsewhere the variant without a suffix ("openblas", not "openblasp") is the serial one.
find_library(SerialBLAS_LIBRARY NAMES openblas PATH_SUFFIXES openblas-serial)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(SerialBLAS REQUIRED_VARS SerialBLAS_LIBRARY)
if(SerialBLAS_FOUND AND NOT TARGET SerialBLAS::SerialBLAS)
  add_library(SerialBLAS::SerialBLAS UNKNOWN IMPORTED)
  set_target_properties(SerialBLAS::SerialBLAS PROPERTIES IMPORTED_LOCATION "${SerialBLAS_LIBRARY}")
endif()
mark_as_advanced(SerialBLAS_LIBRARY)
