#include <algorithm>
#include <cstring>

#include "kernels/attention/batch.h"
#include "kernels/attention/tile_mask.h"
#include "kernels/cpu_only.h"
#include "serrate/kernels/attention_mask.h"

namespace serrate {
namespace {

std::int64_t blocks_in(std::int64_t count) {
  return ceil_div(count, kMaskBlock);
}

// Bytes of a row of bits, of which sizeof(QueryBits) can be read from any that holds one.
std::int64_t row_bytes(std::int64_t bits) {
  return (bits + 7) / 8 + static_cast<std::int64_t>(sizeof(QueryBits));
}

bool bit(const std::uint8_t* row, std::int64_t i) {
  return (row[i / 8] >> i % 8 & 1) != 0;
}

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
  for (std::int64_t b = 0; b < blocks_in(num_queries); ++b) {
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

BitMask::BitMask(MatrixView<const std::uint8_t> visible, const Stream& stream) {
  dispatch_cpu_only(stream.device(), "BitMask", [](auto) {});
  const std::int64_t queries = visible.rows, keys = visible.cols;
  const std::int64_t key_blocks = blocks_in(keys);
  const std::int64_t bits_row = row_bytes(queries), block_row = row_bytes(blocks_in(queries));
  storage_ = Buffer<std::uint8_t>::zeros(keys * bits_row + 2 * key_blocks * block_row, stream);
  std::uint8_t* data = storage_.data();
  const MatrixView<std::uint8_t> bits(data, keys, bits_row);
  const MatrixView<std::uint8_t> any(data + keys * bits_row, key_blocks, block_row);
  const MatrixView<std::uint8_t> all(any.row(key_blocks), key_blocks, block_row);
#pragma omp parallel for num_threads(stream.num_threads()) schedule(static)
  for (std::int64_t first = 0; first < keys; first += kKeysAtOnce) {
    const std::int64_t end = std::min(first + kKeysAtOnce, keys);
    pack_keys(visible, first, end, bits);
    for (std::int64_t key = first; key < end; key += kMaskBlock) {
      const std::int64_t block = key / kMaskBlock;
      summarise_keys(bits, key, std::min(key + kMaskBlock, end), queries, any.row(block),
                     all.row(block));
    }
  }
  view_ = {queries, keys, bits, any, all};
}

double BitMask::tile_density(std::int64_t tile) const {
  const std::int64_t step = blocks_in(tile);
  const std::int64_t query_blocks = blocks_in(view_.num_queries);
  std::int64_t tiles = 0, not_empty = 0;
  for (std::int64_t c = 0; c < view_.any.rows; c += step) {
    for (std::int64_t b = 0; b < query_blocks; b += step) {
      bool any = false;
      for (std::int64_t y = c; y < std::min(c + step, view_.any.rows); ++y) {
        for (std::int64_t x = b; x < std::min(b + step, query_blocks); ++x) {
          any = any || bit(view_.any.row(y), x);
        }
      }
      ++tiles, not_empty += any;
    }
  }
  return tiles == 0 ? 0 : static_cast<double>(not_empty) / static_cast<double>(tiles);
}

}  // namespace serrate
