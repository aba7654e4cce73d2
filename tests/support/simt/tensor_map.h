#pragma once

#include <cuda.h>

#include <cstdint>
#include <vector>

namespace simt {

/// What a CUtensorMap of the simulated device holds.
struct TensorMap {
  std::uint64_t address = 0;
  std::uint64_t strides[4] = {};  // in bytes, of dimensions 1 and up
  std::uint32_t last[5] = {};     // index in each dimension: the size less one
  std::uint16_t box[5] = {};
  std::uint8_t element_strides[5] = {};
  std::uint8_t rank = 0, type = 0, swizzle = 0;
  bool fills_nan = false;
  std::uint32_t mark = 0;
};
static_assert(sizeof(TensorMap) <= sizeof(CUtensorMap));

/// Null when no cuTensorMapEncodeTiled made it.
const TensorMap* tensor_map(const CUtensorMap* map);
unsigned element_bytes(const TensorMap& map);
/// The number of elements along a dimension that a box holds.
unsigned box_elements(const TensorMap& map, unsigned dimension);
/// Bytes of the box in shared memory.
unsigned box_bytes(const TensorMap& map);

/// Up to 16 bytes of a box that lie together, in shared memory too.
struct BoxPiece {
  std::uintptr_t shared, global;
  std::uint32_t bytes;
  bool inside;  // of the tensor
};
/// The pieces of the box whose first element has those coordinates.
std::vector<BoxPiece> box_pieces(const TensorMap& map, const int* coordinates,
                                 std::uintptr_t shared);

/// The address in a tile that is swizzled over `span` bytes: 0 (not), 32, 64, 128.
std::uintptr_t swizzled(std::uintptr_t address, unsigned span);

}  // namespace simt
