#include "src/io/sealed_file.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>

#include "serrate/error.h"
#include "src/io/file_calls.h"
#include "src/io/read_error.h"
#include "src/io/sealed_file_layout.h"

namespace serrate {
namespace {

std::int64_t size_of(int descriptor, const std::string& path) {
  struct stat status = {};
  if (::fstat(descriptor, &status) != 0) fail_file("inspect", path, errno);
  if (!S_ISREG(status.st_mode)) {
    throw usage_error(fmt::format("cannot open {} (it is {}, not a file)", path,
                                  S_ISDIR(status.st_mode) ? "a folder" : "a device or a pipe"));
  }
  return status.st_size;
}

/// Why a file might have no trailer, by where its HDF5 superblock (version 2 or 3) says it ends.
std::string explain_no_seal(const std::array<std::uint64_t, 6>& start, std::int64_t file_bytes) {
  if (file_bytes < 48 || start[0] != 0x0A1A0A0D46444889) {
    return "it is neither a dataset nor a checkpoint of serrate";
  }
  const auto* bytes = reinterpret_cast<const unsigned char*>(start.data());
  std::uint64_t end = 0;
  std::memcpy(&end, bytes + 28, sizeof(end));
  if (bytes[8] >= 2 && bytes[9] == 8 && end == static_cast<std::uint64_t>(file_bytes)) {
    return "an earlier version or another program wrote it; make it again, as with 'serrate "
           "convert'";
  }
  return fmt::format(
      "its {} bytes are cut off, or something was appended; restore it from a copy or make it "
      "again",
      file_bytes);
}

}  // namespace

SealedFile::SealedFile(std::string path, int descriptor, State state)
    : path_(std::move(path)),
      descriptor_(descriptor),
      state_(state),
      cache_(std::make_unique_for_overwrite<std::byte[]>(kSlots * kBlock)) {}

std::unique_ptr<SealedFile> SealedFile::open(const std::string& path, ReadErrorKind kind_of) {
  // O_NONBLOCK: a pipe nobody writes to must not hold us up before it is refused.
  const int descriptor = open_descriptor(path, O_RDONLY | O_NONBLOCK);
  if (descriptor < 0) fail_file("open", path, errno, kind_of(errno));
  std::unique_ptr<SealedFile> file(new SealedFile(path, descriptor, State::kSealed));
  file->read_trailer();
  return file;
}

void SealedFile::read_trailer() {
  const std::int64_t file_size = size_of(descriptor_.number(), path_);
  std::array<std::uint64_t, kFooterWords> footer = {};
  const auto read_words = [&](std::int64_t offset, std::span<std::uint64_t> words) {
    iovec piece{words.data(), words.size_bytes()};
    read_exactly(offset, {&piece, 1});
  };
  if (file_size >= kFooterBytes) read_words(file_size - kFooterBytes, footer);
  if (footer[kMagicWord] != kMagic) {
    std::array<std::uint64_t, 6> start = {};
    if (file_size >= 48) read_words(0, start);
    throw usage_error(fmt::format("{} has no seal ({})", path_, explain_no_seal(start, file_size)));
  }
  if (footer[kVersionWord] != kVersion) {
    throw usage_error(fmt::format(
        "{} is sealed in format {} with blocks of {} bytes (this program reads format {} with {}; "
        "damaged, or written by a later version)",
        path_, footer[kVersionWord] & 0xFFFFFFFF, footer[kVersionWord] >> 32, kVersion & 0xFFFFFFFF,
        kBlock));
  }
  // Compared before anything is computed with it: it may be any number.
  const std::uint64_t size = footer[kSizeWord];
  const std::uint64_t blocks = size / kBlock + (size % kBlock != 0);
  if (size > static_cast<std::uint64_t>(file_size) ||
      size + blocks * sizeof(std::uint64_t) + kFooterBytes !=
          static_cast<std::uint64_t>(file_size)) {
    throw usage_error(fmt::format(
        "{} is damaged (its seal speaks of {} bytes of content, which do not fit the file's {}): "
        "restore it from a copy or make it again",
        path_, size, file_size));
  }
  size_ = static_cast<std::int64_t>(size);
  try {
    checksums_.resize(blocks + kFooterWords);
  } catch (const std::bad_alloc&) {
    throw Error(
        fmt::format("cannot open {} (not enough memory for its {} checksums)", path_, blocks));
  }
  read_words(size_, checksums_);
  const auto trailer = std::as_bytes(std::span(checksums_));
  if (checksum(trailer.data(), static_cast<std::int64_t>(trailer.size() - sizeof(std::uint64_t))) !=
      checksums_.back()) {
    throw usage_error(
        fmt::format("{} is damaged (bytes {} to {}, its seal): restore it from a copy or make it "
                    "again",
                    path_, size_, file_size));
  }
  checksums_.resize(blocks);
}

std::int64_t SealedFile::block_size(std::int64_t block) const {
  // A file that is being written keeps whole blocks: it is not known yet which is the last.
  return state_ == State::kSealed ? std::min(kBlock, size_ - block * kBlock) : kBlock;
}

std::int64_t SealedFile::file_bytes() const {
  return size_ + num_blocks() * static_cast<std::int64_t>(sizeof(std::uint64_t)) + kFooterBytes;
}

std::string SealedFile::digest() const {
  check(state_ == State::kSealed, "a file has no digest before it is sealed");
  const XXH128_hash_t hash =
      XXH3_128bits_withSeed(checksums_.data(), checksums_.size() * sizeof(std::uint64_t),
                            static_cast<std::uint64_t>(size_));
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

// ---- reading ----------------------------------------------------------------------------------

void SealedFile::read(std::int64_t offset, std::span<std::byte> bytes) const {
  const auto count = static_cast<std::int64_t>(bytes.size());
  // What is being written has zeros behind its end.
  if (offset < 0 || (state_ == State::kSealed && (offset > size_ || count > size_ - offset))) {
    throw usage_error(fmt::format("{} has {} bytes of content ({} from byte {} on are asked for)",
                                  path_, size_, count, offset));
  }
  const std::int64_t end = offset + count;
  std::byte* to = bytes.data();
  for (std::int64_t at = offset; at < end;) {
    const std::int64_t block = at / kBlock;
    std::int64_t next = std::min(end, (block + 1) * kBlock);
    const bool whole = at == block * kBlock && next - at == block_size(block);
    const std::span<std::byte> part(to, static_cast<std::size_t>(next - at));
    if (state_ != State::kSealed) {
      read_written(block, at % kBlock, part);
    } else if (whole || !read_cached(block, at % kBlock, part)) {
      next = std::min(end, (block + kBlocksAtOnce) * kBlock);
      read_run(at, {to, static_cast<std::size_t>(next - at)});
    }
    to += next - at;
    at = next;
  }
}

void SealedFile::verify() const {
  std::vector<std::byte> buffer(kBlocksAtOnce * kBlock);
  for (std::int64_t at = 0; at < size_; at += static_cast<std::int64_t>(buffer.size())) {
    buffer.resize(static_cast<std::size_t>(std::min<std::int64_t>(size_ - at, buffer.size())));
    read_run(at, buffer);
  }
}

/// Reads bytes of at most kBlocksAtOnce blocks in one call of the system: whole blocks go to where
/// they are wanted, those of which a part is wanted, the first and the last, beside.
void SealedFile::read_run(std::int64_t offset, std::span<std::byte> bytes) const {
  const std::int64_t end = offset + static_cast<std::int64_t>(bytes.size());
  const std::int64_t first = offset / kBlock;
  const std::int64_t last = (end - 1) / kBlock;
  const std::int64_t run_end = last * kBlock + block_size(last);
  const bool part_of_last = end < run_end;
  const bool part_of_first = offset > first * kBlock || (first == last && part_of_last);
  std::array<std::byte, kBlock> first_block, last_block;
  const auto wanted_at = [&](std::int64_t block) { return bytes.data() + block * kBlock - offset; };
  const auto place_of = [&](std::int64_t block) {
    if (block == first && part_of_first) return first_block.data();
    return block == last && part_of_last ? last_block.data() : wanted_at(block);
  };

  std::array<iovec, kBlocksAtOnce> pieces = {};
  for (std::int64_t block = first; block <= last; ++block) {
    pieces[block - first] = {place_of(block), static_cast<std::size_t>(block_size(block))};
  }
  read_exactly(first * kBlock, std::span(pieces).first(static_cast<std::size_t>(last - first + 1)));
  for (std::int64_t block = first; block <= last; ++block) verify_block(block, place_of(block));

  if (part_of_first) {
    const std::int64_t count = std::min(end, (first + 1) * kBlock) - offset;
    std::memcpy(bytes.data(), first_block.data() + offset % kBlock,
                static_cast<std::size_t>(count));
  }
  if (part_of_last && first < last) {
    std::memcpy(wanted_at(last), last_block.data(), static_cast<std::size_t>(end - last * kBlock));
  }
  // The next read may go on there.
  if (part_of_last) remember(last, place_of(last));
}

void SealedFile::verify_block(std::int64_t block, const std::byte* bytes) const {
  if (checksum(bytes, block_size(block)) == checksums_[block]) return;
  throw usage_error(
      fmt::format("{} is damaged (bytes {} to {} are not what was written, by their checksum): "
                  "restore it from a "
                  "copy or make it again",
                  path_, block * kBlock, block * kBlock + block_size(block)));
}

/// Whether a part of a block was in the cache.
bool SealedFile::read_cached(std::int64_t block, std::int64_t begin,
                             std::span<std::byte> bytes) const {
  const std::lock_guard lock(mutex_);
  const std::size_t slot = find_slot(block);
  if (slot == kSlots) return false;
  slots_[slot].last_use = ++uses_;
  std::memcpy(bytes.data(), slot_bytes(slot) + begin, bytes.size());
  return true;
}

void SealedFile::remember(std::int64_t block, const std::byte* bytes) const {
  const std::lock_guard lock(mutex_);
  if (find_slot(block) != kSlots) return;  // another thread was faster
  const std::size_t slot = oldest_slot();
  slots_[slot] = {.block = block, .last_use = ++uses_, .dirty = false};
  std::memcpy(slot_bytes(slot), bytes, static_cast<std::size_t>(block_size(block)));
}

std::size_t SealedFile::find_slot(std::int64_t block) const {
  return static_cast<std::size_t>(std::ranges::find(slots_, block, &Slot::block) - slots_.begin());
}

std::size_t SealedFile::oldest_slot() const {
  return static_cast<std::size_t>(std::ranges::min_element(slots_, {}, &Slot::last_use) -
                                  slots_.begin());
}

/// A part of a block of a file that is being written.
void SealedFile::read_written(std::int64_t block, std::int64_t begin,
                              std::span<std::byte> bytes) const {
  if (read_cached(block, begin, bytes)) return;
  std::array<std::byte, kBlock> content = {};
  if (block < num_blocks() && stored_[block]) load(block, content.data());
  std::memcpy(bytes.data(), content.data() + begin, bytes.size());
}

void SealedFile::load(std::int64_t block, std::byte* bytes) const {
  iovec piece{bytes, static_cast<std::size_t>(block_size(block))};
  read_exactly(block * kBlock, {&piece, 1});
  verify_block(block, bytes);
}

/// Fills the pieces, which it changes, one after another.
void SealedFile::read_exactly(std::int64_t offset, std::span<iovec> pieces) const {
  std::int64_t end = offset;
  for (const iovec& piece : pieces) end += static_cast<std::int64_t>(piece.iov_len);
  while (offset < end) {
    const auto got = retry_interrupted([&] {
      return ::preadv(descriptor_.number(), pieces.data(), static_cast<int>(pieces.size()), offset);
    });
    if (got < 0) {
      const int error = errno;
      fail_file(fmt::format("read bytes {} to {} of", offset, end), path_, error,
                state_ == State::kSealed ? kind_of_read_error(error) : ErrorKind::kFailure);
    }
    if (got == 0) {
      throw usage_error(fmt::format(
          "{} was cut off while it was in use (bytes {} to {} are missing): restore it from a copy "
          "or make it again",
          path_, offset, end));
    }
    offset += got;
    for (auto left = static_cast<std::size_t>(got); left > 0;) {
      const std::size_t taken = std::min(left, pieces.front().iov_len);
      iovec& piece = pieces.front();
      piece = {static_cast<std::byte*>(piece.iov_base) + taken, piece.iov_len - taken};
      if (piece.iov_len == 0) pieces = pieces.subspan(1);
      left -= taken;
    }
  }
}

std::string verify_sealed_file(const std::string& path) {
  const auto file = SealedFile::open(path);
  file->verify();
  return file->digest();
}

}  // namespace serrate
