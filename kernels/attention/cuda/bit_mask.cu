// Packs a mask into bits. A thread a byte: bytes are written whole, so that nothing is atomic.
#include "kernels/attention/bit_mask.h"

#include "src/core/launch.cuh"

namespace serrate {
namespace {

constexpr unsigned kBlockSize = 256;

// Launches with a thread for each byte of a matrix, as the kernel's last argument has it.
template <typename Kernel, typename From>
void for_each_byte(Kernel kernel, const From& from, std::int64_t rows, std::int64_t bits,
                   const PackedBits& to, const Stream& stream) {
  const std::int64_t bytes = (bits + 7) / 8, threads = rows * bytes;
  if (threads == 0) return;
  launch(kernel, static_cast<unsigned>(ceil_div(threads, kBlockSize)), kBlockSize, 0, stream, from,
         rows, bytes, to);
}

// Byte i of a row: queries [8 i, 8 i + 8) of a key.
__global__ void pack_keys(const DeviceMatrix<const std::uint8_t> visible, std::int64_t keys,
                          std::int64_t bytes, const PackedBits to) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kBlockSize + threadIdx.x;
  if (i >= keys * bytes) return;
  const std::int64_t key = i % keys, byte = i / keys;  // neighbours read neighbours
  unsigned bits = 0;
  for (std::int64_t query = 8 * byte; query < 8 * byte + 8 && query < visible.rows; ++query) {
    const bool sees = visible.device_data()[query * visible.stride + key] != 0;
    bits |= static_cast<unsigned>(sees) << query % 8;
  }
  to.bits.device_data()[key * to.bits.stride + byte] = static_cast<std::uint8_t>(bits);
}

struct Size {
  std::int64_t queries, keys;
};

// Byte i of a row: of a block of keys, the blocks of queries [8 i, 8 i + 8).
__global__ void summarise(const Size size, std::int64_t key_blocks, std::int64_t bytes,
                          const PackedBits to) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kBlockSize + threadIdx.x;
  if (i >= key_blocks * bytes) return;
  const std::int64_t key_block = i / bytes, byte = i % bytes;
  const std::int64_t first = key_block * kMaskBlock;
  unsigned any = 0, all = 0;
  for (std::int64_t b = 8 * byte; b < 8 * byte + 8 && b * kMaskBlock < size.queries; ++b) {
    const std::int64_t queries = size.queries - b * kMaskBlock;
    const unsigned whole = queries >= kMaskBlock ? 0xFFFF : (1u << queries) - 1;
    unsigned some = 0, every = whole;
    for (std::int64_t key = first; key < first + kMaskBlock && key < size.keys; ++key) {
      const std::uint8_t* row = to.bits.device_data() + key * to.bits.stride + 2 * b;
      const unsigned seen_by = row[0] | (queries > 8 ? row[1] << 8 : 0);
      some |= seen_by, every &= seen_by;
    }
    any |= static_cast<unsigned>(some != 0) << b % 8;
    all |= static_cast<unsigned>(every == whole) << b % 8;
  }
  to.any.device_data()[key_block * to.any.stride + byte] = static_cast<std::uint8_t>(any);
  to.all.device_data()[key_block * to.all.stride + byte] = static_cast<std::uint8_t>(all);
}

}  // namespace

template <>
void pack_bit_mask_on<DeviceType::kCuda>(DeviceMatrix<const std::uint8_t> visible,
                                         const PackedBits& to, const Stream& stream) {
  for_each_byte(pack_keys, visible, visible.cols, visible.rows, to, stream);
  for_each_byte(summarise, Size{visible.rows, visible.cols}, mask_blocks_in(visible.cols),
                mask_blocks_in(visible.rows), to, stream);
}

}  // namespace serrate
