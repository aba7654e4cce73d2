#pragma once

#include <xxhash.h>

#include <bit>
#include <cstddef>
#include <cstdint>

#include "src/io/sealed_file.h"

namespace serrate {

// What docs/sealed_file_format.md says, for the reader and the writer.

static_assert(std::endian::native == std::endian::little,
              "the words of a trailer are as in memory");

inline constexpr std::int64_t kBlock = SealedFile::kBlockBytes;
inline constexpr std::int64_t kBlocksAtOnce = 16;  // hashed while they are in the nearest caches

// The trailer is 64-bit words: a checksum a block, then these.
enum FooterWord : std::size_t { kMagicWord, kVersionWord, kSizeWord, kChecksumWord, kFooterWords };
inline constexpr std::uint64_t kMagic = 0x0A1A4C4145530A89;  // \x89 \n S E A L \x1A \n
inline constexpr std::uint64_t kVersion = 1 | std::uint64_t{kBlock} << 32;
inline constexpr std::int64_t kFooterBytes = kFooterWords * sizeof(std::uint64_t);

inline std::uint64_t checksum(const std::byte* bytes, std::int64_t count) {
  return XXH3_64bits(bytes, static_cast<std::size_t>(count));
}

}  // namespace serrate
