#include "src/io/hdf5_sealed_driver.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "serrate/error.h"

namespace serrate {
namespace {

constexpr haddr_t kMaxAddress = std::numeric_limits<std::int64_t>::max();

/// HDF5 sees the first member, which it fills in.
struct StorageFile {
  H5FD_t base;
  Hdf5Storage* storage;
  haddr_t end_of_allocation;
};

StorageFile& opened(H5FD_t* file) {
  return *reinterpret_cast<StorageFile*>(file);
}
const StorageFile& opened(const H5FD_t* file) {
  return *reinterpret_cast<const StorageFile*>(file);
}

H5FD_t* open_file(const char*, unsigned, hid_t access_properties, haddr_t) {
  const void* info = H5Pget_driver_info(access_properties);
  if (!info) return nullptr;
  return &(new StorageFile{{}, *static_cast<Hdf5Storage* const*>(info), 0})->base;
}

herr_t close_file(H5FD_t* file) {
  delete &opened(file);
  return 0;
}

herr_t query(const H5FD_t*, unsigned long* flags) {
  *flags = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA |
           H5FD_FEAT_DEFAULT_VFD_COMPATIBLE;
  return 0;
}

haddr_t get_end_of_allocation(const H5FD_t* file, H5FD_mem_t) {
  return opened(file).end_of_allocation;
}

herr_t set_end_of_allocation(H5FD_t* file, H5FD_mem_t, haddr_t address) {
  if (address > kMaxAddress) return -1;
  opened(file).end_of_allocation = address;
  return 0;
}

haddr_t get_end_of_file(const H5FD_t* file, H5FD_mem_t) {
  return static_cast<haddr_t>(opened(file).storage->file->size());
}

herr_t read(H5FD_t* file, H5FD_mem_t, hid_t, haddr_t address, std::size_t size, void* bytes) {
  const SealedDriver& driver = sealed_driver();
  const auto fail = [&](hid_t kind, const char* message) {
    H5Epush2(H5E_DEFAULT, __FILE__, __func__, __LINE__, driver.error_class, H5E_VFL, kind, "%s",
             message);
    return -1;
  };
  try {
    opened(file).storage->file->read(static_cast<std::int64_t>(std::min(address, kMaxAddress)),
                                     {static_cast<std::byte*>(bytes), size});
    return 0;
  } catch (const Error& error) {
    return fail(error.kind() == ErrorKind::kUsage ? driver.usage : driver.failure, error.what());
  } catch (const std::exception& error) {
    return fail(driver.failure, error.what());
  }
}

/// Does what changes the file unless a change has failed before; see Hdf5Storage::write_error.
template <typename Change>
herr_t change(Hdf5Storage& storage, const Change& make) {
  if (storage.write_error) return 0;
  try {
    make(*storage.file);
  } catch (...) {
    storage.write_error = std::current_exception();
  }
  return 0;
}

herr_t write(H5FD_t* file, H5FD_mem_t, hid_t, haddr_t address, std::size_t size,
             const void* bytes) {
  return change(*opened(file).storage, [&](SealedFile& to) {
    to.write(static_cast<std::int64_t>(std::min(address, kMaxAddress)),
             {static_cast<const std::byte*>(bytes), size});
  });
}

/// HDF5's last word before it closes a file that it wrote: where the file ends.
herr_t truncate(H5FD_t* file, hid_t, hbool_t) {
  const auto size = static_cast<std::int64_t>(opened(file).end_of_allocation);
  if (size == opened(file).storage->file->size()) return 0;
  return change(*opened(file).storage, [&](SealedFile& of) { of.resize(size); });
}

constexpr H5FD_class_t kClass = {
    .name = "serrate_sealed",
    .maxaddr = kMaxAddress,
    .fc_degree = H5F_CLOSE_STRONG,
    .terminate = nullptr,
    .sb_size = nullptr,
    .sb_encode = nullptr,
    .sb_decode = nullptr,
    .fapl_size = sizeof(Hdf5Storage*),
    .fapl_get = nullptr,
    .fapl_copy = nullptr,
    .fapl_free = nullptr,
    .dxpl_size = 0,
    .dxpl_copy = nullptr,
    .dxpl_free = nullptr,
    .open = open_file,
    .close = close_file,
    .cmp = nullptr,  // two openings never share what HDF5 knows of a file
    .query = query,
    .get_type_map = nullptr,
    .alloc = nullptr,
    .free = nullptr,
    .get_eoa = get_end_of_allocation,
    .set_eoa = set_end_of_allocation,
    .get_eof = get_end_of_file,
    .get_handle = nullptr,
    .read = read,
    .write = write,
    .flush = nullptr,
    .truncate = truncate,
    .lock = nullptr,  // files appear by rename, complete
    .unlock = nullptr,
    .fl_map = H5FD_FLMAP_DICHOTOMY,
};

hid_t checked(hid_t id) {
  check(id >= 0, "HDF5 does not take the file driver");
  return id;
}

}  // namespace

const SealedDriver& sealed_driver() {
  static const SealedDriver instance = [] {
    const hid_t errors = checked(H5Eregister_class("serrate", "serrate", "1"));
    return SealedDriver{.driver = checked(H5FDregister(&kClass)),
                        .error_class = errors,
                        .failure = checked(H5Ecreate_msg(errors, H5E_MINOR, "failure")),
                        .usage = checked(H5Ecreate_msg(errors, H5E_MINOR, "usage"))};
  }();
  return instance;
}

void set_sealed_driver(hid_t access_properties, Hdf5Storage* storage) {
  check(H5Pset_driver(access_properties, sealed_driver().driver, &storage) >= 0,
        "HDF5 does not take the file driver");
}

}  // namespace serrate
