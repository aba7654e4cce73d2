#include "tests/support/simt/nccl_reduce.h"

#include <algorithm>
#include <cstring>

#include "tests/support/simt/library.h"
#include "tests/support/simt/small_floats.h"

namespace simt {
namespace {

template <typename T>
T combine(T a, T b, ncclRedOp_t op) {
  switch (op) {
    case ncclProd:
      return static_cast<T>(a * b);
    case ncclMax:
      return std::max(a, b);
    case ncclMin:
      return std::min(a, b);
    default:
      return static_cast<T>(a + b);
  }
}

template <typename T, typename Load, typename Store>
void reduce_as(const std::vector<const std::uint8_t*>& parts, std::uint8_t* to, std::size_t count,
               std::size_t bytes, ncclRedOp_t op, Load load, Store store) {
  const std::size_t n = parts.size();
  std::vector<std::uint8_t> sum(bytes);
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t first = (schedule_seed() + i / 32) % n;
    std::memcpy(sum.data(), parts[first] + i * bytes, bytes);
    for (std::size_t r = 1; r < n; ++r) {
      const T value = load(parts[(first + r) % n] + i * bytes);
      store(sum.data(), combine<T>(load(sum.data()), value, op));
    }
    if (op == ncclAvg) store(sum.data(), static_cast<T>(load(sum.data()) / static_cast<T>(n)));
    std::memcpy(to + i * bytes, sum.data(), bytes);
  }
}

template <typename T>
void reduce_plain(const std::vector<const std::uint8_t*>& parts, std::uint8_t* to,
                  std::size_t count, ncclRedOp_t op) {
  reduce_as<T>(
      parts, to, count, sizeof(T), op,
      [](const std::uint8_t* from) {
        T value;
        std::memcpy(&value, from, sizeof value);
        return value;
      },
      [](std::uint8_t* at, T value) { std::memcpy(at, &value, sizeof value); });
}

template <typename Decode, typename Encode>
void reduce_16(const std::vector<const std::uint8_t*>& parts, std::uint8_t* to, std::size_t count,
               ncclRedOp_t op, Decode decode, Encode encode) {
  reduce_as<float>(
      parts, to, count, 2, op,
      [&](const std::uint8_t* from) {
        std::uint16_t bits;
        std::memcpy(&bits, from, 2);
        return decode(bits);
      },
      [&](std::uint8_t* at, float value) {
        const std::uint16_t bits = encode(value);
        std::memcpy(at, &bits, 2);
      });
}

}  // namespace

std::size_t size_of(ncclDataType_t type) {
  switch (type) {
    case ncclInt8:
    case ncclUint8:
    case ncclFloat8e4m3:
    case ncclFloat8e5m2:
      return 1;
    case ncclFloat16:
    case ncclBfloat16:
      return 2;
    case ncclInt32:
    case ncclUint32:
    case ncclFloat32:
      return 4;
    default:
      return 8;
  }
}

void reduce(const std::vector<const std::uint8_t*>& parts, std::uint8_t* to, std::size_t count,
            ncclDataType_t type, ncclRedOp_t op) {
  switch (type) {
    case ncclInt8:
      return reduce_plain<std::int8_t>(parts, to, count, op);
    case ncclUint8:
      return reduce_plain<std::uint8_t>(parts, to, count, op);
    case ncclInt32:
      return reduce_plain<std::int32_t>(parts, to, count, op);
    case ncclUint32:
      return reduce_plain<std::uint32_t>(parts, to, count, op);
    case ncclInt64:
      return reduce_plain<std::int64_t>(parts, to, count, op);
    case ncclUint64:
      return reduce_plain<std::uint64_t>(parts, to, count, op);
    case ncclFloat32:
      return reduce_plain<float>(parts, to, count, op);
    case ncclFloat64:
      return reduce_plain<double>(parts, to, count, op);
    case ncclFloat16:
      return reduce_16(parts, to, count, op, half_to_float, float_to_half);
    case ncclBfloat16:
      return reduce_16(parts, to, count, op, bfloat16_to_float, float_to_bfloat16);
    default:
      return;  // refused before
  }
}

}  // namespace simt
