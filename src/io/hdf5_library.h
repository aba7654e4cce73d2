#pragma once

#include <fmt/format.h>
#include <hdf5.h>

#include <mutex>
#include <source_location>
#include <string>
#include <string_view>

#include "src/io/hdf5_file.h"

// Calls into the HDF5 library.

namespace serrate {

static_assert(std::is_same_v<hid_t, std::int64_t> && std::is_same_v<herr_t, int>);

/// Held around every call into HDF5: the process-wide mutex, and HDF5 not printing its errors.
class Hdf5Session {
 public:
  /// To write a file: throws Error when there is too little memory to call HDF5.
  explicit Hdf5Session(const std::string& path);
  /// To close something, which has to be done.
  Hdf5Session();
  ~Hdf5Session();
  Hdf5Session(const Hdf5Session&) = delete;
  Hdf5Session& operator=(const Hdf5Session&) = delete;

 private:
  void silence();

  std::lock_guard<std::recursive_mutex> lock_;
  H5E_auto2_t print_ = nullptr;
  void* print_data_ = nullptr;
};

/// The Error of the call that failed: "cannot `action` `object`", or what the file driver said.
Error hdf5_error(std::string_view action, std::string_view object,
                 const std::source_location& where);

/// Passes on what a call of HDF5 returned; throws hdf5_error() when it failed.
template <typename Result>
Result hdf5_check(Result result, std::string_view action, std::string_view object,
                  const std::source_location& where = std::source_location::current()) {
  if (result < 0) throw hdf5_error(action, object, where);
  return result;
}

inline Hdf5Handle own(hid_t id, herr_t (*close)(hid_t), std::string_view action,
                      std::string_view object,
                      const std::source_location& where = std::source_location::current()) {
  return {hdf5_check(id, action, object, where), close};
}

/// How a file is opened whose bytes go to `storage`.
Hdf5Handle access_properties(Hdf5Storage* storage);
/// How a new file or group is made: without times, so that equal content is equal bytes, and with
/// its attributes and links in its header, where read_hdf5_metadata finds them.
Hdf5Handle object_properties(hid_t object_class);
/// A dataset besides: one run of bytes, which is given its place at once.
Hdf5Handle dataset_properties();

}  // namespace serrate
