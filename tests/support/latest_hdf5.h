#pragma once

#include <hdf5.h>

namespace serrate::testing {

/// File access properties for HDF5's own calls: of its formats the one that Hdf5File writes.
inline hid_t latest_hdf5() {
  static const hid_t properties = [] {
    const hid_t made = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_libver_bounds(made, H5F_LIBVER_LATEST, H5F_LIBVER_LATEST);
    return made;
  }();
  return properties;
}

}  // namespace serrate::testing
