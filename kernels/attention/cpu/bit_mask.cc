#include <algorithm>
#include <cstring>

#include "kernels/attention/bit_mask.h"

namespace serrate {
namespace {

// Keys whose rows of bits are written together: few enough that they stay in cache from one byte to
// the next, enough for runs of the dense mask's rows.
constexpr std::int64_t kKeysAtOnce = 256;

// The bits of keys [first, end).
void pack_keys(const MatrixView<const std::uint8_t>& visible, std::int64_t first, std::int64_t end,
               const MatrixView<std::uint8_t>& bits) {
  const std::int64_t keys = end - first;
  for (std::int64_t query = 0; query < visible.rows; query += 8) {
    std::uint8_t seen_by[kKeysAtOnce] = {};
    for (std::int64_t r = 0; r < std::min<std::int64_t>(8, visible.rows - query); ++r) {
      const std::uint8_t* row = visible.row(query + r) + first;
      const auto in_byte = static_cast<std::uint8_t>(1 << r);
      for (std::int64_t j = 0; j < keys; ++j) seen_by[j] |= row[j] != 0 ? in_byte : 0;
    }
    for (std::int64_t j = 0; j < keys; ++j) bits.row(first + j)[query / 8] = seen_by[j];
  }
}

// What is empty and what is full in blocks of 16 queries x the keys [first, end).
void summarise_keys(const MatrixView<const std::uint8_t>& bits, std::int64_t first,
                    std::int64_t end, std::int64_t num_queries, std::uint8_t* any,
                    std::uint8_t* all) {
  for (std::int64_t b = 0; b < mask_blocks_in(num_queries); ++b) {
    std::uint16_t some = 0, every = 0xFFFF;
    for (std::int64_t key = first; key < end; ++key) {
      std::uint16_t seen_by;
      std::memcpy(&seen_by, bits.row(key) + 2 * b, sizeof(seen_by));
      some |= seen_by, every &= seen_by;
    }
    const std::int64_t queries = std::min(kMaskBlock, num_queries - b * kMaskBlock);
    const auto in_byte = static_cast<std::uint8_t>(1 << b % 8);
    if (some != 0) any[b / 8] |= in_byte;
    if (every == (1u << queries) - 1) all[b / 8] |= in_byte;
  }
}

}  // namespace

template <>
void pack_bit_mask_on<DeviceType::kCpu>(DeviceMatrix<const std::uint8_t> visible_on_device,
                                        const PackedBits& to, const Stream& stream) {
  const auto visible = host_view(visible_on_device, stream);
  const auto bits = host_view(to.bits, stream), any = host_view(to.any, stream);
  const auto all = host_view(to.all, stream);
  const std::int64_t keys = visible.cols;
#pragma omp parallel for num_threads(stream.num_threads()) schedule(static)
  for (std::int64_t first = 0; first < keys; first += kKeysAtOnce) {
    const std::int64_t end = std::min(first + kKeysAtOnce, keys);
    pack_keys(visible, first, end, bits);
    for (std::int64_t key = first; key < end; key += kMaskBlock) {
      const std::int64_t block = key / kMaskBlock;
      summarise_keys(bits, key, std::min(key + kMaskBlock, end), visible.rows, any.row(block),
                     all.row(block));
    }
  }
}

}  // namespace serrate
