#include "src/io/hdf5_library.h"

#include <sys/mman.h>

#include "src/io/hdf5_sealed_driver.h"

namespace serrate {
namespace {

/// HDF5 uses the null pointers that it gets when memory is short, or keeps its lock for ever, so
/// there has to be more than it asks for: with the addresses that malloc reserves for a thread.
void check_memory(const std::string& path) {
  constexpr std::size_t kAmple = 128 << 20;  // bytes; not used
  // What malloc does for a block of this size, but AddressSanitizer's, which writes 16 MiB for it.
  void* const block =
      ::mmap(nullptr, kAmple, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (block == MAP_FAILED) {
    throw Error(fmt::format("cannot write {} (there is no memory left)", path));
  }
  ::munmap(block, kAmple);
}

// Recursive: handles close themselves while a call that made them is under way.
std::recursive_mutex& mutex() {
  static std::recursive_mutex instance;
  // A close that fails, as on a full disk, leaves HDF5 1.10 with an id of freed memory, which its
  // exit handler would use. Handles close their files themselves, so it is not needed.
  [[maybe_unused]] static const herr_t no_exit_handler = H5dont_atexit();
  return instance;
}

/// The innermost entry of HDF5's error stack: the one that tells the cause.
struct Hdf5Cause {
  std::string message = "no message of HDF5";
  bool of_file = false;  // what the file driver could not read
  ErrorKind kind = ErrorKind::kFailure;
};

Hdf5Cause hdf5_cause() {
  Hdf5Cause cause;
  const auto take_first = [](unsigned depth, const H5E_error2_t* entry, void* out) -> herr_t {
    if (depth > 0 || !entry->desc) return 0;
    const SealedDriver& driver = sealed_driver();
    *static_cast<Hdf5Cause*>(out) = {
        .message = entry->desc,
        .of_file = entry->cls_id == driver.error_class,
        .kind = entry->min_num == driver.usage ? ErrorKind::kUsage : ErrorKind::kFailure};
    return 0;
  };
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, take_first, &cause);
  return cause;
}

}  // namespace

Hdf5Session::Hdf5Session(const std::string& path) : lock_(mutex()) {
  check_memory(path);
  silence();
}

Hdf5Session::Hdf5Session() : lock_(mutex()) {
  silence();
}

Hdf5Session::~Hdf5Session() {
  H5Eset_auto2(H5E_DEFAULT, print_, print_data_);
}

void Hdf5Session::silence() {
  H5Eget_auto2(H5E_DEFAULT, &print_, &print_data_);
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
}

Error hdf5_error(std::string_view action, std::string_view object,
                 const std::source_location& where) {
  const Hdf5Cause cause = hdf5_cause();
  if (cause.of_file) return Error(cause.message, cause.kind);
  return Error(fmt::format("cannot {} {} (HDF5: {}; {}:{})", action, object, cause.message,
                           where.file_name(), where.line()));
}

int Hdf5Handle::reset() noexcept {
  if (id_ < 0) return 0;
  const Hdf5Session session;
  return close_(std::exchange(id_, -1));
}

Hdf5Handle access_properties(Hdf5Storage* storage) {
  auto properties = own(H5Pcreate(H5P_FILE_ACCESS), H5Pclose, "set up", "HDF5");
  const hid_t id = properties.id();
  hdf5_check(H5Pset_libver_bounds(id, H5F_LIBVER_LATEST, H5F_LIBVER_LATEST), "set up", "HDF5");
  hdf5_check(H5Pset_fclose_degree(id, H5F_CLOSE_STRONG), "set up", "HDF5");
  hdf5_check(H5PLset_loading_state(0), "set up", "HDF5");
  set_sealed_driver(id, storage);
  return properties;
}

Hdf5Handle object_properties(hid_t object_class) {
  constexpr unsigned kMost = 65535;  // of attributes and of links
  auto properties = own(H5Pcreate(object_class), H5Pclose, "set up", "HDF5");
  const hid_t id = properties.id();
  hdf5_check(H5Pset_obj_track_times(id, false), "set up", "HDF5");
  hdf5_check(H5Pset_attr_phase_change(id, kMost, kMost), "set up", "HDF5");
  if (object_class != H5P_DATASET_CREATE) {
    hdf5_check(H5Pset_link_phase_change(id, kMost, kMost), "set up", "HDF5");
  }
  return properties;
}

Hdf5Handle dataset_properties() {
  auto properties = object_properties(H5P_DATASET_CREATE);
  const hid_t id = properties.id();
  hdf5_check(H5Pset_layout(id, H5D_CONTIGUOUS), "set up", "HDF5");
  hdf5_check(H5Pset_alloc_time(id, H5D_ALLOC_TIME_EARLY), "set up", "HDF5");
  hdf5_check(H5Pset_fill_time(id, H5D_FILL_TIME_NEVER), "set up", "HDF5");
  return properties;
}

}  // namespace serrate
