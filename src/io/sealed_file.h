#pragma once

#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "src/io/file_descriptor.h"
#include "src/io/read_error.h"

namespace serrate {

/// A file under checksums, docs/sealed_file_format.md: the content, then a trailer with the XXH3 of
/// each of its blocks. Whatever is read was verified first; damage, a file that was cut, and one
/// that changes while it is open are errors that name the file and its bytes.
///
/// All errors are Error: usage for what a file is or where it is, failure for what a device did.
class SealedFile {
 public:
  static constexpr std::int64_t kBlockBytes = 8 << 10;

  /// A new file, replacing what was there, to be written and then sealed. One thread writes.
  static std::unique_ptr<SealedFile> create(const std::string& path);
  /// For reading, from any number of threads at once. Verifies the trailer, not yet the content.
  /// `kind_of` says of which kind the Error is when it cannot be opened.
  static std::unique_ptr<SealedFile> open(const std::string& path,
                                          ReadErrorKind kind_of = kind_of_read_error);

  const std::string& path() const { return path_; }
  /// Size of the content, in bytes.
  std::int64_t size() const { return size_; }
  /// Size of the file, trailer included, in bytes.
  std::int64_t file_bytes() const;
  /// 32 hexadecimal digits that name the content, of a file that is sealed: an XXH3-128.
  std::string digest() const;

  void read(std::int64_t offset, std::span<std::byte> bytes) const;
  /// Reads all of the content, for nothing but its checksums.
  void verify() const;

  /// What nothing was written to holds zeros.
  void write(std::int64_t offset, std::span<const std::byte> bytes);
  /// Cuts the content off, or makes it longer by zeros.
  void resize(std::int64_t size);
  /// Writes the trailer, makes the file durable and closes it.
  void seal();

 private:
  enum class State { kWriting, kSealed, kLost };  // lost: something could not be written
  struct Slot {
    std::int64_t block = -1;
    std::uint64_t last_use = 0;
    bool dirty = false;
  };
  static constexpr std::size_t kSlots = 64;

  SealedFile(std::string path, int descriptor, State state);
  void read_trailer();
  template <typename Change>
  void change(const Change& make);
  std::int64_t num_blocks() const { return (size_ + kBlockBytes - 1) / kBlockBytes; }
  std::int64_t block_size(std::int64_t block) const;
  void read_run(std::int64_t offset, std::span<std::byte> bytes) const;
  bool read_cached(std::int64_t block, std::int64_t begin, std::span<std::byte> bytes) const;
  void read_written(std::int64_t block, std::int64_t begin, std::span<std::byte> bytes) const;
  void load(std::int64_t block, std::byte* bytes) const;
  void verify_block(std::int64_t block, const std::byte* bytes) const;
  void remember(std::int64_t block, const std::byte* bytes) const;
  void write_blocks(std::int64_t begin, std::int64_t end, const std::byte* bytes);
  std::byte* slot_bytes(std::size_t slot) const { return cache_.get() + slot * kBlockBytes; }
  std::size_t find_slot(std::int64_t block) const;
  std::size_t oldest_slot() const;
  std::size_t take_slot(std::int64_t block);
  void write_slot(std::size_t slot);
  void set_size(std::int64_t size);
  void complete_checksums();
  void read_exactly(std::int64_t offset, std::span<iovec> pieces) const;
  void write_exactly(std::int64_t offset, const std::byte* bytes, std::int64_t count);

  std::string path_;
  FileDescriptor descriptor_;
  State state_;
  std::int64_t size_ = 0;
  std::vector<std::uint64_t> checksums_;  // by block
  std::vector<bool> stored_;              // while writing, by block: the file has it
  // The blocks used last, verified; while writing, some of them not in the file yet.
  mutable std::mutex mutex_;
  mutable std::array<Slot, kSlots> slots_;
  mutable std::uint64_t uses_ = 0;
  std::unique_ptr<std::byte[]> cache_;
};

/// Opens a file, reads all of it and returns its digest; throws as SealedFile does.
std::string verify_sealed_file(const std::string& path);

}  // namespace serrate
