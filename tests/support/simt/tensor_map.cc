#include "tests/support/simt/tensor_map.h"

#include <algorithm>
#include <cstring>

namespace simt {
namespace {

constexpr std::uint32_t kMark = 0x7E4502AB;

unsigned bytes_of(unsigned type) {
  constexpr std::uint8_t kBytes[] = {1, 2, 4, 4, 8, 8, 2, 4, 8, 2, 4, 4, 4};
  return kBytes[type];
}

bool is_float(CUtensorMapDataType type) {
  return type >= CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
}

unsigned span_of(unsigned swizzle) {
  return swizzle == CU_TENSOR_MAP_SWIZZLE_NONE ? 0 : 16u << swizzle;
}

}  // namespace

std::uintptr_t swizzled(std::uintptr_t address, unsigned span) {
  const std::uintptr_t mask = span == 128 ? 7 : span == 64 ? 3 : span == 32 ? 1 : 0;
  return address ^ (((address >> 7) & mask) << 4);
}

const TensorMap* tensor_map(const CUtensorMap* map) {
  const auto* here = reinterpret_cast<const TensorMap*>(map);
  return here->mark == kMark ? here : nullptr;
}

unsigned element_bytes(const TensorMap& map) {
  return bytes_of(map.type);
}

unsigned box_elements(const TensorMap& map, unsigned dimension) {
  const unsigned stride = dimension == 0 ? 1 : map.element_strides[dimension];
  return (map.box[dimension] + stride - 1) / stride;
}

namespace {

unsigned box_rows(const TensorMap& map) {
  unsigned rows = 1;
  for (unsigned d = 1; d < map.rank; ++d) rows *= box_elements(map, d);
  return rows;
}

}  // namespace

unsigned box_bytes(const TensorMap& map) {
  return box_rows(map) * map.box[0] * element_bytes(map);
}

std::vector<BoxPiece> box_pieces(const TensorMap& map, const int* coordinates,
                                 std::uintptr_t shared) {
  const unsigned element = element_bytes(map), span = span_of(map.swizzle);
  const unsigned width = map.box[0] * element, pitch = span ? span : width;
  const auto is_inside = [&](unsigned dimension, std::int64_t at) {
    return at >= 0 && at <= map.last[dimension];
  };
  std::vector<BoxPiece> pieces;
  for (unsigned row = 0; row < box_rows(map); ++row) {
    bool row_inside = true;
    std::uint64_t global = map.address;  // may wrap around, as on the device
    unsigned rest = row;
    for (unsigned d = 1; d < map.rank; ++d) {
      const std::int64_t at =
          coordinates[d] + std::int64_t{rest % box_elements(map, d)} * map.element_strides[d];
      rest /= box_elements(map, d);
      row_inside = row_inside && is_inside(d, at);
      global += static_cast<std::uint64_t>(at) * map.strides[d - 1];
    }
    global += static_cast<std::uint64_t>(std::int64_t{coordinates[0]} * element);
    for (unsigned x = 0; x < width; x += element) {
      const bool inside = row_inside && is_inside(0, std::int64_t{coordinates[0]} + x / element);
      const bool goes_on = x % 16 != 0 && pieces.back().inside == inside;
      if (goes_on) {
        pieces.back().bytes += element;
      } else {
        pieces.push_back({swizzled(shared + row * pitch + x, span), global + x, element, inside});
      }
    }
  }
  return pieces;
}

}  // namespace simt

using namespace simt;

CUresult cuTensorMapEncodeTiled(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank,
                                void* address, const cuuint64_t* dims, const cuuint64_t* strides,
                                const cuuint32_t* box, const cuuint32_t* element_strides,
                                CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                                CUtensorMapL2promotion, CUtensorMapFloatOOBfill fill) {
  const auto begin = reinterpret_cast<std::uintptr_t>(address);
  bool valid = reinterpret_cast<std::uintptr_t>(map) % 64 == 0 &&
               type <= CU_TENSOR_MAP_DATA_TYPE_TFLOAT32_FTZ && rank >= 1 && rank <= 5 &&
               begin != 0 && begin % 16 == 0 && interleave == CU_TENSOR_MAP_INTERLEAVE_NONE &&
               swizzle <= CU_TENSOR_MAP_SWIZZLE_128B;
  if (!valid) return CUDA_ERROR_INVALID_VALUE;
  TensorMap made;
  made.address = begin;
  made.rank = static_cast<std::uint8_t>(rank);
  made.type = static_cast<std::uint8_t>(type);
  made.swizzle = static_cast<std::uint8_t>(swizzle);
  made.fills_nan = fill != CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE;
  made.mark = kMark;
  for (cuuint32_t d = 0; d < rank; ++d) {
    valid = valid && dims[d] >= 1 && dims[d] <= cuuint64_t{1} << 32 && box[d] >= 1 &&
            box[d] <= 256 && element_strides[d] >= 1 && element_strides[d] <= 8;
    if (d > 0) {
      valid = valid && strides[d - 1] % 16 == 0 && strides[d - 1] < cuuint64_t{1} << 40;
      made.strides[d - 1] = strides[d - 1];
    }
    made.last[d] = static_cast<std::uint32_t>(dims[d] - 1);
    made.box[d] = static_cast<std::uint16_t>(box[d]);
    made.element_strides[d] = static_cast<std::uint8_t>(element_strides[d]);
  }
  const unsigned width = box[0] * bytes_of(type), span = span_of(swizzle);
  valid = valid && width % 16 == 0 && (span == 0 || width <= span) &&
          (!made.fills_nan || is_float(type));
  if (!valid) return CUDA_ERROR_INVALID_VALUE;
  std::memset(map, 0, sizeof *map);
  std::memcpy(static_cast<void*>(map), &made, sizeof made);
  return CUDA_SUCCESS;
}
