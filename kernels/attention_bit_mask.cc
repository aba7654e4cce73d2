#include <algorithm>
#include <cstring>

#include "kernels/attention_tile_mask.h"
#include "kernels/cpu_only.h"
#include "serrate/kernels/attention_mask.h"

namespace serrate {
namespace {

std::int64_t blocks_in(std::int64_t count) {
  return (count + kMaskBlock - 1) / kMaskBlock;
}

// Bytes of a row of bits, of which 8 can be read from any that holds one.
std::int64_t row_bytes(std::int64_t bits) {
  return (bits + 7) / 8 + 8;
}

void set_bit(std::uint8_t* row, std::int64_t i) {
  row[i / 8] |= static_cast<std::uint8_t>(1 << i % 8);
}

bool bit(const std::uint8_t* row, std::int64_t i) {
  return (row[i / 8] >> i % 8 & 1) != 0;
}

// `all` from bits of which none beyond the mask is set.
bool is_full(const MatrixView<std::uint8_t>& bits, std::int64_t block, std::int64_t key_block,
             std::int64_t num_queries) {
  const std::int64_t queries = std::min(kMaskBlock, num_queries - block * kMaskBlock);
  const std::int64_t end = std::min((key_block + 1) * kMaskBlock, bits.rows);
  for (std::int64_t key = key_block * kMaskBlock; key < end; ++key) {
    std::uint16_t seen_by;
    std::memcpy(&seen_by, bits.row(key) + block * 2, sizeof(seen_by));
    if (seen_by != (1u << queries) - 1) return false;
  }
  return true;
}

}  // namespace

BitMask::BitMask(MatrixView<const std::uint8_t> visible, const Stream& stream) {
  dispatch_cpu_only(stream.device(), "BitMask", [](auto) {});
  const std::int64_t queries = visible.rows, keys = visible.cols;
  const std::int64_t query_blocks = blocks_in(queries), key_blocks = blocks_in(keys);
  const std::int64_t bits_bytes = keys * row_bytes(queries);
  const std::int64_t block_bytes = key_blocks * row_bytes(query_blocks);
  storage_ = Buffer<std::uint8_t>::zeros(bits_bytes + 2 * block_bytes, stream);
  std::uint8_t* data = storage_.data();
  const MatrixView<std::uint8_t> bits(data, keys, row_bytes(queries));
  const MatrixView<std::uint8_t> any(data + bits_bytes, key_blocks, row_bytes(query_blocks));
  const MatrixView<std::uint8_t> all(data + bits_bytes + block_bytes, key_blocks,
                                     row_bytes(query_blocks));
#pragma omp parallel for num_threads(stream.num_threads()) schedule(static)
  for (std::int64_t c = 0; c < key_blocks; ++c) {
    const std::int64_t end = std::min((c + 1) * kMaskBlock, keys);
    for (std::int64_t i = 0; i < queries; ++i) {
      for (std::int64_t j = c * kMaskBlock; j < end; ++j) {
        if (visible.row(i)[j] == 0) continue;
        set_bit(bits.row(j), i);
        set_bit(any.row(c), i / kMaskBlock);
      }
    }
    for (std::int64_t b = 0; b < query_blocks; ++b) {
      if (is_full(bits, b, c, queries)) set_bit(all.row(c), b);
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
