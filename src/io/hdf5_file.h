#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "serrate/error.h"
#include "src/io/hdf5_metadata.h"

namespace serrate {

struct Hdf5Storage;

/// One HDF5 identifier, closed by the destructor.
class Hdf5Handle {
 public:
  Hdf5Handle() = default;
  Hdf5Handle(std::int64_t id, int (*close)(std::int64_t)) : id_(id), close_(close) {}
  ~Hdf5Handle() { reset(); }
  Hdf5Handle(Hdf5Handle&& other) noexcept
      : id_(std::exchange(other.id_, -1)), close_(other.close_) {}
  Hdf5Handle& operator=(Hdf5Handle&& other) noexcept {
    std::swap(id_, other.id_);
    std::swap(close_, other.close_);
    return *this;
  }

  std::int64_t id() const { return id_; }
  /// Closes now; negative when that failed.
  int reset() noexcept;

 private:
  std::int64_t id_ = -1;
  int (*close_)(std::int64_t) = nullptr;
};

/// A part of a dataset: rows [row_begin, row_end) of columns [column_begin, column_end).
struct Hdf5Block {
  std::int64_t row_begin = 0;
  std::int64_t row_end = 0;
  std::int64_t column_begin = 0;
  std::int64_t column_end = 1;
};

/// An open dataset of one or two dimensions: [rows] or [rows, columns]. Its values are one run of
/// bytes of the file, which any number of threads may read at once; they do not wait for HDF5.
/// T is uint8_t, int64_t, Float16, BFloat16, float or double, and has to be the type of the file.
/// Hold the Hdf5File longer than its datasets.
class Hdf5Dataset {
 public:
  Hdf5Dataset() = default;
  int rank() const { return rank_; }
  std::int64_t rows() const { return rows_; }
  std::int64_t columns() const { return columns_; }  ///< 1 when there is one dimension
  const std::string& name() const { return name_; }

  template <typename T>
  void read_block(const Hdf5Block& block, std::span<T> values) const;
  template <typename T>
  void write_block(const Hdf5Block& block, std::span<const T> values);
  /// `values` is [end - begin, columns].
  template <typename T>
  void read_rows(std::int64_t begin, std::int64_t end, std::span<T> values) const {
    read_block({begin, end, 0, columns_}, values);
  }
  template <typename T>
  void write_rows(std::int64_t begin, std::int64_t end, std::span<const T> values) {
    write_block({begin, end, 0, columns_}, values);
  }

 private:
  friend class Hdf5File;
  void check_block(const Hdf5Block& block, std::size_t num_values) const;
  template <typename T, typename Transfer>
  void for_each_run(const Hdf5Block& block, std::span<T> values, const Transfer& transfer) const;

  Hdf5Storage* storage_ = nullptr;
  std::string name_;
  std::int64_t offset_ = 0;  // of the values in the file
  std::int64_t rows_ = 0;
  std::int64_t columns_ = 1;
  int rank_ = 1;
};

/// An HDF5 file of named datasets ("/group/name") and attributes, sealed: whatever is read of it
/// was verified first (SealedFile). It is written by HDF5, one mutex of the process around every
/// call, since HDF5 need not have been built thread safe. It is read without HDF5
/// (read_hdf5_metadata), by any number of threads, and only when it has plain content: no soft or
/// external links, no datasets but contiguous ones inside the file. What was created cannot be read
/// before it is closed and opened. The errors are SealedFile's, and usage for content that is not
/// as asked for.
class Hdf5File {
 public:
  /// A new file, replacing what was there. Write to an AtomicFile, never over a file in use.
  static Hdf5File create(const std::string& path);
  /// Read only. As SealedFile::open().
  static Hdf5File open(const std::string& path, ReadErrorKind kind_of = kind_of_read_error);
  ~Hdf5File();
  Hdf5File(Hdf5File&&) noexcept;
  Hdf5File& operator=(Hdf5File&&) = delete;

  const std::string& path() const { return path_; }
  /// Writes what is left of a new file, seals it, makes it durable and closes it. One that was
  /// not closed so cannot be opened.
  void close();
  /// 32 hexadecimal digits that name the content of a file that was opened or closed: the same
  /// calls on another new file give the same digits.
  std::string digest() const;
  /// Size of the whole file, when it was opened or closed.
  std::int64_t file_bytes() const;
  /// Reads all of it, for nothing but its checksums.
  void verify() const;

  bool contains(const std::string& name) const;
  /// Throws Error (usage) naming the file and the dataset when it is missing, holds another type
  /// than T, has more than two dimensions or is not plain.
  template <typename T>
  Hdf5Dataset dataset(const std::string& name) const;
  /// `dims` is {rows} or {rows, columns}; missing groups of the name are made.
  template <typename T>
  Hdf5Dataset create_dataset(const std::string& name, const std::vector<std::int64_t>& dims);
  template <typename T>
  void write(const std::string& name, std::span<const T> values,
             const std::vector<std::int64_t>& dims) {
    create_dataset<T>(name, dims).write_rows(0, dims.front(), values);
  }
  /// All values of a dataset.
  template <typename T>
  std::vector<T> read(const std::string& name) const {
    const auto source = dataset<T>(name);
    std::vector<T> values(static_cast<std::size_t>(source.rows() * source.columns()));
    source.read_rows(0, source.rows(), std::span<T>(values));
    return values;
  }

  /// Makes a group, unless it is there, and those above it.
  void create_group(const std::string& name);
  /// Attributes of a group or dataset; "/" for the file.
  void write_attribute(const std::string& object, const std::string& name, std::string_view text);
  void write_attribute(const std::string& object, const std::string& name, std::int64_t value);
  bool has_attribute(const std::string& object, const std::string& name) const;
  std::string read_text(const std::string& object, const std::string& name) const;
  std::int64_t read_integer(const std::string& object, const std::string& name) const;

 private:
  explicit Hdf5File(std::unique_ptr<Hdf5Storage> storage);
  const Hdf5Object* find(const std::string& name) const;
  const Hdf5Object& object(const std::string& name) const;
  const Hdf5Attribute& attribute(const std::string& object, const std::string& name) const;

  std::string path_;
  std::unique_ptr<Hdf5Storage> storage_;  // outlives the handle
  Hdf5Handle handle_;                     // while it is written
  Hdf5Metadata metadata_;                 // when it was opened
};

}  // namespace serrate
