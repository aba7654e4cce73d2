#include "kernels/attention/bit_mask.h"

#include <algorithm>
#include <vector>

#include "src/core/dispatch.h"

namespace serrate {
namespace {

// Bytes of a row of bits, of which 16 can be read from any that holds one.
std::int64_t row_bytes(std::int64_t bits) {
  constexpr std::int64_t kRead = 16;
  return (bits + 7) / 8 + kRead;
}

}  // namespace

BitMask::BitMask(DeviceMatrix<const std::uint8_t> visible, const Stream& stream) {
  const std::int64_t queries = visible.rows, keys = visible.cols;
  const std::int64_t key_blocks = mask_blocks_in(keys);
  const std::int64_t bits_row = row_bytes(queries), block_row = row_bytes(mask_blocks_in(queries));
  storage_ = Buffer<std::uint8_t>::zeros(keys * bits_row + 2 * key_blocks * block_row, stream);
  std::uint8_t* data = storage_.device_data();
  const PackedBits packed{{data, keys, bits_row},
                          {data + keys * bits_row, key_blocks, block_row},
                          {data + keys * bits_row + key_blocks * block_row, key_blocks, block_row}};
  dispatch_device(stream.device(),
                  [&](auto device) { pack_bit_mask_on<device()>(visible, packed, stream); });
  view_ = {queries, keys, packed.bits, packed.any, packed.all};
}

double BitMask::tile_density(std::int64_t tile, const Stream& stream) const {
  const DeviceMatrix<const std::uint8_t>& any = view_.any;
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(any.rows * any.stride));
  copy_to_host<std::uint8_t>(any.flat(), bytes, stream);
  const auto is_empty = [&](std::int64_t key_block, std::int64_t query_block) {
    return (bytes[key_block * any.stride + query_block / 8] >> query_block % 8 & 1) == 0;
  };
  const std::int64_t step = mask_blocks_in(tile);
  const std::int64_t query_blocks = mask_blocks_in(view_.num_queries);
  std::int64_t tiles = 0, not_empty = 0;
  for (std::int64_t c = 0; c < any.rows; c += step) {
    for (std::int64_t b = 0; b < query_blocks; b += step) {
      bool has_any = false;
      for (std::int64_t y = c; y < std::min(c + step, any.rows); ++y) {
        for (std::int64_t x = b; x < std::min(b + step, query_blocks); ++x) {
          has_any = has_any || !is_empty(y, x);
        }
      }
      ++tiles, not_empty += has_any;
    }
  }
  return tiles == 0 ? 0 : static_cast<double>(not_empty) / static_cast<double>(tiles);
}

}  // namespace serrate
