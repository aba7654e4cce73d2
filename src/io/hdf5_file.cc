#include "src/io/hdf5_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "serrate/bfloat16.h"
#include "serrate/float16.h"
#include "src/io/hdf5_library.h"
#include "src/io/hdf5_sealed_driver.h"

namespace serrate {
namespace {

static_assert(std::endian::native == std::endian::little, "values are in memory as in the file");

/// Behind calls that may write.
void check_written(const Hdf5Storage& storage) {
  if (storage.write_error) std::rethrow_exception(storage.write_error);
}

Hdf5Handle copy_of(hid_t type) {
  return own(H5Tcopy(type), H5Tclose, "copy", "a type");
}

/// A sign, an exponent and a mantissa in 16 bits, for which HDF5 1.10 has no name.
Hdf5Handle small_float(std::size_t exponent_bits, std::size_t exponent_bias) {
  const std::size_t mantissa_bits = 15 - exponent_bits;
  Hdf5Handle type = copy_of(H5T_IEEE_F32LE);
  hdf5_check(H5Tset_fields(type.id(), 15, mantissa_bits, exponent_bits, 0, mantissa_bits), "make",
             "a type");
  hdf5_check(H5Tset_size(type.id(), 2), "make", "a type");
  hdf5_check(H5Tset_ebias(type.id(), exponent_bias), "make", "a type");
  return type;
}

template <typename T>
Hdf5Handle file_type();
template <>
Hdf5Handle file_type<std::uint8_t>() {
  return copy_of(H5T_STD_U8LE);
}
template <>
Hdf5Handle file_type<std::int64_t>() {
  return copy_of(H5T_STD_I64LE);
}
template <>
Hdf5Handle file_type<Float16>() {
  return small_float(5, 15);
}
template <>
Hdf5Handle file_type<BFloat16>() {
  return small_float(8, 127);
}
template <>
Hdf5Handle file_type<float>() {
  return copy_of(H5T_IEEE_F32LE);
}
template <>
Hdf5Handle file_type<double>() {
  return copy_of(H5T_IEEE_F64LE);
}

template <typename T>
constexpr std::string_view kTypeName = std::is_same_v<T, std::uint8_t>   ? "uint8"
                                       : std::is_same_v<T, std::int64_t> ? "int64"
                                       : std::is_same_v<T, Float16>      ? "fp16"
                                       : std::is_same_v<T, BFloat16>     ? "bf16"
                                       : std::is_same_v<T, float>        ? "float32"
                                                                         : "float64";

/// Where the values of a dataset begin; 0 when there are none.
std::int64_t offset_of(hid_t dataset) {
  const haddr_t offset = H5Dget_offset(dataset);
  H5Eclear2(H5E_DEFAULT);  // it calls it an error when there is no place
  return offset == HADDR_UNDEF ? 0 : static_cast<std::int64_t>(offset);
}

bool exists(hid_t file, const std::string& name) {
  return name == "/" || H5Lexists(file, name.c_str(), H5P_DEFAULT) > 0;
}

template <typename T>
constexpr Hdf5Type kType = std::is_same_v<T, std::uint8_t>   ? Hdf5Type::kUint8
                           : std::is_same_v<T, std::int64_t> ? Hdf5Type::kInt64
                           : std::is_same_v<T, Float16>      ? Hdf5Type::kFloat16
                           : std::is_same_v<T, BFloat16>     ? Hdf5Type::kBFloat16
                           : std::is_same_v<T, float>        ? Hdf5Type::kFloat32
                                                             : Hdf5Type::kFloat64;

std::string absolute(const std::string& name) {
  return name.starts_with('/') ? name : "/" + name;
}

}  // namespace

void Hdf5Dataset::check_block(const Hdf5Block& block, std::size_t num_values) const {
  const bool inside = 0 <= block.row_begin && block.row_begin <= block.row_end &&
                      block.row_end <= rows_ && 0 <= block.column_begin &&
                      block.column_begin <= block.column_end && block.column_end <= columns_;
  if (inside && num_values == static_cast<std::size_t>((block.row_end - block.row_begin) *
                                                       (block.column_end - block.column_begin))) {
    return;
  }
  throw Error(
      fmt::format("{} of {} has {} x {} values (rows {} to {} of columns {} to {} are asked for, "
                  "in room for {})",
                  name_, storage_->file->path(), rows_, columns_, block.row_begin, block.row_end,
                  block.column_begin, block.column_end, num_values));
}

/// Calls transfer(offset in the file, values) for each run of bytes of a block.
template <typename T, typename Transfer>
void Hdf5Dataset::for_each_run(const Hdf5Block& block, std::span<T> values,
                               const Transfer& transfer) const {
  check_block(block, values.size());
  if (values.empty()) return;
  const std::int64_t width = block.column_end - block.column_begin;
  const bool whole_rows = width == columns_;
  const std::int64_t run = whole_rows ? static_cast<std::int64_t>(values.size()) : width;
  std::int64_t at = block.row_begin * columns_ + block.column_begin;
  for (; !values.empty(); values = values.subspan(static_cast<std::size_t>(run)), at += columns_) {
    transfer(offset_ + at * static_cast<std::int64_t>(sizeof(T)),
             values.first(static_cast<std::size_t>(run)));
  }
}

template <typename T>
void Hdf5Dataset::read_block(const Hdf5Block& block, std::span<T> values) const {
  for_each_run(block, values, [&](std::int64_t offset, std::span<T> run) {
    storage_->file->read(offset, std::as_writable_bytes(run));
  });
}

template <typename T>
void Hdf5Dataset::write_block(const Hdf5Block& block, std::span<const T> values) {
  for_each_run(block, values, [&](std::int64_t offset, std::span<const T> run) {
    storage_->file->write(offset, std::as_bytes(run));
  });
}

Hdf5File::Hdf5File(std::unique_ptr<Hdf5Storage> storage)
    : path_(storage->file->path()), storage_(std::move(storage)) {}
Hdf5File::~Hdf5File() = default;
Hdf5File::Hdf5File(Hdf5File&&) noexcept = default;

Hdf5File Hdf5File::create(const std::string& path) {
  Hdf5File file(std::make_unique<Hdf5Storage>(SealedFile::create(path)));
  const Hdf5Session session(path);
  file.handle_ = own(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, object_properties(H5P_FILE_CREATE).id(),
                               access_properties(file.storage_.get()).id()),
                     H5Fclose, "create", path);
  check_written(*file.storage_);
  return file;
}

Hdf5File Hdf5File::open(const std::string& path, ReadErrorKind kind_of) {
  Hdf5File file(std::make_unique<Hdf5Storage>(SealedFile::open(path, kind_of)));
  file.metadata_ = read_hdf5_metadata(*file.storage_->file);
  return file;
}

void Hdf5File::close() {
  {
    const Hdf5Session session(path_);
    hdf5_check(handle_.reset(), "close", path_);
  }
  check_written(*storage_);
  read_hdf5_metadata(*storage_->file);  // what is sealed can be read
  storage_->file->seal();
}

std::string Hdf5File::digest() const {
  return storage_->file->digest();
}

std::int64_t Hdf5File::file_bytes() const {
  return storage_->file->file_bytes();
}

void Hdf5File::verify() const {
  storage_->file->verify();
}

const Hdf5Object* Hdf5File::find(const std::string& name) const {
  const std::string path = absolute(name);
  for (const std::string& link : metadata_.other_links) {
    if (path == link || path.starts_with(link + "/")) {
      throw usage_error(fmt::format(
          "{} of {} is a soft or external link (refused, since it may lead to another file)", name,
          path_));
    }
  }
  const auto found = metadata_.objects.find(path);
  return found == metadata_.objects.end() ? nullptr : &found->second;
}

bool Hdf5File::contains(const std::string& name) const {
  return find(name) != nullptr;
}

const Hdf5Object& Hdf5File::object(const std::string& name) const {
  const Hdf5Object* found = find(name);
  if (!found) throw usage_error(fmt::format("{} has no {}", path_, name));
  return *found;
}

template <typename T>
Hdf5Dataset Hdf5File::dataset(const std::string& name) const {
  const Hdf5Object& found = object(name);
  if (!found.is_dataset) {
    throw usage_error(fmt::format("{} of {} is not a dataset", name, path_));
  }
  if (found.type != kType<T>) {
    throw usage_error(
        fmt::format("{} of {} does not hold values of type {}", name, path_, kTypeName<T>));
  }
  if (found.dims.size() != 1 && found.dims.size() != 2) {
    throw usage_error(fmt::format("{} of {} has {} dimensions (1 or 2 expected)", name, path_,
                                  found.dims.size()));
  }
  if (!found.contiguous) {
    throw usage_error(fmt::format(
        "{} of {} is chunked, packed or stored elsewhere (refused: only plain contiguous datasets "
        "are read)",
        name, path_));
  }
  Hdf5Dataset result;
  result.storage_ = storage_.get();
  result.name_ = name;
  result.rank_ = static_cast<int>(found.dims.size());
  const std::uint64_t columns = result.rank_ == 2 ? found.dims[1] : 1;
  // Before anyone allocates what a file claims.
  const auto size = static_cast<std::uint64_t>(storage_->file->size());
  std::uint64_t bytes = 0;
  if (found.dims[0] > size || columns > size ||  // more rows of no columns than bytes, or the like
      __builtin_mul_overflow(found.dims[0], columns, &bytes) ||
      __builtin_mul_overflow(bytes, std::uint64_t{sizeof(T)}, &bytes) ||
      (bytes > 0 && (found.offset > size || bytes > size - found.offset))) {
    throw usage_error(
        fmt::format("{} of {} claims {} x {} values of {} bytes (more than the file has for them)",
                    name, path_, found.dims[0], columns, sizeof(T)));
  }
  result.offset_ = bytes > 0 ? static_cast<std::int64_t>(found.offset) : 0;
  result.rows_ = static_cast<std::int64_t>(found.dims[0]);
  result.columns_ = static_cast<std::int64_t>(columns);
  return result;
}

template <typename T>
Hdf5Dataset Hdf5File::create_dataset(const std::string& name,
                                     const std::vector<std::int64_t>& dims) {
  check(dims.size() == 1 || dims.size() == 2, "a dataset has one or two dimensions");
  const Hdf5Session session(path_);
  Hdf5Dataset result;
  result.storage_ = storage_.get();
  result.name_ = name;
  result.rank_ = static_cast<int>(dims.size());
  result.rows_ = dims[0];
  result.columns_ = dims.size() == 2 ? dims[1] : 1;
  const std::array<hsize_t, 2> extent = {static_cast<hsize_t>(result.rows_),
                                         static_cast<hsize_t>(result.columns_)};
  const auto space =
      own(H5Screate_simple(result.rank_, extent.data(), nullptr), H5Sclose, "create", name);
  if (const std::size_t end = name.rfind('/'); end != 0 && end != std::string::npos) {
    create_group(name.substr(0, end));
  }
  const auto properties = dataset_properties();
  const auto object = own(H5Dcreate2(handle_.id(), name.c_str(), file_type<T>().id(), space.id(),
                                     H5P_DEFAULT, properties.id(), H5P_DEFAULT),
                          H5Dclose, "create", name + " of " + path_);
  check_written(*storage_);
  result.offset_ = offset_of(object.id());
  return result;
}

void Hdf5File::create_group(const std::string& name) {
  const Hdf5Session session(path_);
  const auto properties = object_properties(H5P_GROUP_CREATE);
  for (std::size_t end = name.find('/', 1);; end = name.find('/', end + 1)) {
    const std::string prefix = name.substr(0, end);
    if (!exists(handle_.id(), prefix)) {
      own(H5Gcreate2(handle_.id(), prefix.c_str(), H5P_DEFAULT, properties.id(), H5P_DEFAULT),
          H5Gclose, "create", prefix + " of " + path_);
    }
    if (end == std::string::npos) return;
  }
}

void Hdf5File::write_attribute(const std::string& object, const std::string& name,
                               std::string_view text) {
  constexpr std::size_t kLongest = 60'000;  // what fits into a header, and then some
  if (text.size() > kLongest) {
    throw usage_error(fmt::format("attribute {} of {} would have {} bytes (it may have {})", name,
                                  path_, text.size(), kLongest));
  }
  const Hdf5Session session(path_);
  const auto target =
      own(H5Oopen(handle_.id(), object.c_str(), H5P_DEFAULT), H5Oclose, "open", object);
  const auto type = own(H5Tcopy(H5T_C_S1), H5Tclose, "write", name);
  // HDF5 has no strings of length 0; the type pads with zero bytes, so a text has none at its end.
  hdf5_check(H5Tset_size(type.id(), std::max<std::size_t>(text.size(), 1)), "write", name);
  hdf5_check(H5Tset_strpad(type.id(), H5T_STR_NULLPAD), "write", name);
  hdf5_check(H5Tset_cset(type.id(), H5T_CSET_UTF8), "write", name);
  const auto space = own(H5Screate(H5S_SCALAR), H5Sclose, "write", name);
  const auto attribute =
      own(H5Acreate2(target.id(), name.c_str(), type.id(), space.id(), H5P_DEFAULT, H5P_DEFAULT),
          H5Aclose, "write attribute", name);
  hdf5_check(H5Awrite(attribute.id(), type.id(), text.empty() ? "" : text.data()),
             "write attribute", name);
}

void Hdf5File::write_attribute(const std::string& object, const std::string& name,
                               std::int64_t value) {
  const Hdf5Session session(path_);
  const auto target =
      own(H5Oopen(handle_.id(), object.c_str(), H5P_DEFAULT), H5Oclose, "open", object);
  const auto space = own(H5Screate(H5S_SCALAR), H5Sclose, "write", name);
  const auto attribute = own(
      H5Acreate2(target.id(), name.c_str(), H5T_STD_I64LE, space.id(), H5P_DEFAULT, H5P_DEFAULT),
      H5Aclose, "write attribute", name);
  hdf5_check(H5Awrite(attribute.id(), H5T_STD_I64LE, &value), "write attribute", name);
}

bool Hdf5File::has_attribute(const std::string& object_name, const std::string& name) const {
  return object(object_name).attributes.contains(name);
}

const Hdf5Attribute& Hdf5File::attribute(const std::string& object_name,
                                         const std::string& name) const {
  const auto& attributes = object(object_name).attributes;
  const auto found = attributes.find(name);
  if (found == attributes.end()) {
    throw usage_error(fmt::format("{} of {} has no attribute {}", object_name, path_, name));
  }
  if (!found->second.scalar) {
    throw usage_error(fmt::format("attribute {} of {} is not one value", name, path_));
  }
  return found->second;
}

std::string Hdf5File::read_text(const std::string& object_name, const std::string& name) const {
  const Hdf5Attribute& found = attribute(object_name, name);
  if (found.type != Hdf5Type::kText) {
    throw usage_error(fmt::format("attribute {} of {} is not a text of fixed length", name, path_));
  }
  return found.bytes.substr(0, found.bytes.find_last_not_of('\0') + 1);
}

std::int64_t Hdf5File::read_integer(const std::string& object_name, const std::string& name) const {
  const Hdf5Attribute& found = attribute(object_name, name);
  std::int64_t value = 0;
  if (found.type != Hdf5Type::kInt64 || found.bytes.size() != sizeof(value)) {
    throw usage_error(fmt::format("attribute {} of {} is not an int64", name, path_));
  }
  std::memcpy(&value, found.bytes.data(), sizeof(value));
  return value;
}

// One definition for each type a file may hold.
#define SERRATE_HDF5_TYPE(T)                                                       \
  template void Hdf5Dataset::read_block<T>(const Hdf5Block&, std::span<T>) const;  \
  template void Hdf5Dataset::write_block<T>(const Hdf5Block&, std::span<const T>); \
  template Hdf5Dataset Hdf5File::dataset<T>(const std::string&) const;             \
  template Hdf5Dataset Hdf5File::create_dataset<T>(const std::string&,             \
                                                   const std::vector<std::int64_t>&);
SERRATE_HDF5_TYPE(std::uint8_t)
SERRATE_HDF5_TYPE(std::int64_t)
SERRATE_HDF5_TYPE(Float16)
SERRATE_HDF5_TYPE(BFloat16)
SERRATE_HDF5_TYPE(float)
SERRATE_HDF5_TYPE(double)
#undef SERRATE_HDF5_TYPE

}  // namespace serrate
