#pragma once

#include <hdf5.h>

#include <exception>
#include <memory>

#include "src/io/sealed_file.h"

namespace serrate {

/// What an open HDF5 file is kept in.
struct Hdf5Storage {
  std::unique_ptr<SealedFile> file;
  /// The first failure to write. HDF5 does not learn of it: version 1.10 uses freed memory once a
  /// file could not be closed. Whoever called HDF5 asks here.
  std::exception_ptr write_error = nullptr;
};

/// Makes H5Fopen and H5Fcreate with these file access properties use `storage`, which has to stay
/// where it is until the file is closed. A failure to read is put on HDF5's error stack as an error
/// of sealed_driver().
void set_sealed_driver(hid_t access_properties, Hdf5Storage* storage);

/// The file driver, and how its errors look on HDF5's error stack.
struct SealedDriver {
  hid_t driver = -1;
  hid_t error_class = -1;
  hid_t failure = -1;  // minor numbers, one for each kind of Error
  hid_t usage = -1;
};
const SealedDriver& sealed_driver();

}  // namespace serrate
