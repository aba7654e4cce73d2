#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <numeric>

#include "serrate/error.h"
#include "src/io/file_calls.h"
#include "src/io/sealed_file_layout.h"

namespace serrate {

std::unique_ptr<SealedFile> SealedFile::create(const std::string& path) {
  const int descriptor = open_descriptor(path, O_RDWR | O_CREAT | O_TRUNC);
  if (descriptor < 0) fail_file("create", path, errno);
  return std::unique_ptr<SealedFile>(new SealedFile(path, descriptor, State::kWriting));
}

/// After a change that failed nothing more is written: what the file holds is not known.
template <typename Change>
void SealedFile::change(const Change& make) {
  const std::lock_guard lock(mutex_);
  if (state_ == State::kLost) {
    throw Error(fmt::format("cannot write {} (an earlier write of it failed)", path_));
  }
  check(state_ == State::kWriting, "a sealed file cannot be changed");
  try {
    make();
  } catch (...) {
    state_ = State::kLost;
    throw;
  }
}

void SealedFile::write(std::int64_t offset, std::span<const std::byte> bytes) {
  check(offset >= 0, "a file begins at byte 0");
  change([&] {
    const std::int64_t end = offset + static_cast<std::int64_t>(bytes.size());
    if (end > size_) set_size(end);
    const std::byte* from = bytes.data();
    for (std::int64_t at = offset; at < end;) {
      const std::int64_t block = at / kBlock;
      std::int64_t next = std::min(end, (block + 1) * kBlock);
      if (next - at == kBlock) {
        const std::int64_t stop = std::min(end / kBlock, block + kBlocksAtOnce);
        write_blocks(block, stop, from);
        next = stop * kBlock;
      } else {
        const std::size_t slot = take_slot(block);
        std::memcpy(slot_bytes(slot) + (at - block * kBlock), from,
                    static_cast<std::size_t>(next - at));
        slots_[slot].dirty = true;
      }
      from += next - at;
      at = next;
    }
  });
}

void SealedFile::set_size(std::int64_t size) {
  size_ = size;
  checksums_.resize(static_cast<std::size_t>(num_blocks()));
  stored_.resize(static_cast<std::size_t>(num_blocks()));
}

/// Writes whole blocks [begin, end) and forgets older copies.
void SealedFile::write_blocks(std::int64_t begin, std::int64_t end, const std::byte* bytes) {
  for (Slot& slot : slots_) {
    if (begin <= slot.block && slot.block < end) slot = {};
  }
  for (std::int64_t block = begin; block < end; ++block) {
    checksums_[block] = checksum(bytes + (block - begin) * kBlock, kBlock);
    stored_[block] = true;
  }
  write_exactly(begin * kBlock, bytes, (end - begin) * kBlock);
}

/// A slot that holds `block` as it is now.
std::size_t SealedFile::take_slot(std::int64_t block) {
  std::size_t slot = find_slot(block);
  if (slot == kSlots) {
    slot = oldest_slot();
    write_slot(slot);
    slots_[slot] = {};
    if (stored_[block]) {
      load(block, slot_bytes(slot));
    } else {
      std::fill_n(slot_bytes(slot), kBlock, std::byte{0});
    }
    slots_[slot].block = block;
  }
  slots_[slot].last_use = ++uses_;
  return slot;
}

void SealedFile::write_slot(std::size_t slot) {
  if (!slots_[slot].dirty) return;
  const std::int64_t block = slots_[slot].block;
  checksums_[block] = checksum(slot_bytes(slot), kBlock);
  stored_[block] = true;
  slots_[slot].dirty = false;
  write_exactly(block * kBlock, slot_bytes(slot), kBlock);
}

void SealedFile::resize(std::int64_t size) {
  check(size >= 0, "a file has no fewer than 0 bytes");
  change([&] {
    const bool shorter = size < size_;
    set_size(size);
    if (!shorter) return;
    // So that what is made longer again holds zeros.
    if (retry_interrupted(
            [&] { return ::ftruncate(descriptor_.number(), num_blocks() * kBlock); })) {
      fail_file("set the size of", path_, errno);
    }
    for (Slot& slot : slots_) {
      if (slot.block >= num_blocks()) slot = {};
    }
    if (const std::int64_t used = size_ % kBlock; used > 0) {
      const std::size_t slot = take_slot(num_blocks() - 1);
      std::fill_n(slot_bytes(slot) + used, kBlock - used, std::byte{0});
      slots_[slot].dirty = true;
    }
  });
}

/// The checksums of what was not written, and of the last block, which ends with the content.
void SealedFile::complete_checksums() {
  const std::vector<std::byte> zeros(kBlock);
  for (std::int64_t block = 0; block < num_blocks(); ++block) {
    if (!stored_[block]) checksums_[block] = checksum(zeros.data(), kBlock);
  }
  if (const std::int64_t used = size_ % kBlock; used > 0) {
    const std::size_t slot = take_slot(num_blocks() - 1);
    checksums_.back() = checksum(slot_bytes(slot), used);
  }
}

void SealedFile::seal() {
  change([&] {
    std::array<std::size_t, kSlots> order = {};  // that of the file, for the disk's sake
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::ranges::sort(order, {}, [&](std::size_t slot) { return slots_[slot].block; });
    for (const std::size_t slot : order) write_slot(slot);
    complete_checksums();

    std::vector<std::uint64_t> trailer = checksums_;
    trailer.insert(trailer.end(), {kMagic, kVersion, static_cast<std::uint64_t>(size_)});
    const auto words = std::as_bytes(std::span(trailer));
    trailer.push_back(checksum(words.data(), static_cast<std::int64_t>(words.size())));
    const auto bytes = std::as_bytes(std::span(trailer));

    const int descriptor = descriptor_.number();
    // What the last block has behind the content goes, and holes become zeros.
    if (retry_interrupted([&] { return ::ftruncate(descriptor, size_); }) != 0) {
      fail_file("set the size of", path_, errno);
    }
    write_exactly(size_, bytes.data(), static_cast<std::int64_t>(bytes.size()));
    // Only an interruption is tried again: the system may have dropped what it could not write.
    if (retry_interrupted([&] { return ::fsync(descriptor); }) != 0) {
      fail_file("make durable", path_, errno);
    }
    if (const int error = descriptor_.close(); error != 0) fail_file("close", path_, error);
  });
  state_ = State::kSealed;
}

void SealedFile::write_exactly(std::int64_t offset, const std::byte* bytes, std::int64_t count) {
  for (std::int64_t done = 0; done < count;) {
    const auto put = retry_interrupted([&] {
      return ::pwrite(descriptor_.number(), bytes + done, static_cast<std::size_t>(count - done),
                      offset + done);
    });
    if (put <= 0) {
      const int error = put < 0 ? errno : EIO;
      fail_file(fmt::format("write bytes {} to {} of", offset + done, offset + count), path_,
                error);
    }
    done += put;
  }
}

}  // namespace serrate
