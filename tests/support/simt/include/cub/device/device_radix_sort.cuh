#pragma once

#include <bit>
#include <cub/device/scratch.cuh>
#include <cub/util_type.cuh>
#include <numeric>

namespace cub {
namespace simulated {

// A key as an unsigned number of the same order; -0 and +0 are one.
template <typename Key>
std::uint64_t ordered_bits(Key key) {
  constexpr std::uint64_t kSign = std::uint64_t{1} << (8 * sizeof(Key) - 1);
  if constexpr (std::is_floating_point_v<Key>) {
    if (key == 0) key = 0;
    const std::uint64_t bits = [&] {
      if constexpr (sizeof(Key) == 4)
        return std::uint64_t{std::bit_cast<std::uint32_t>(key)};
      else
        return std::bit_cast<std::uint64_t>(key);
    }();
    return bits & kSign ? ~bits & (2 * kSign - 1) : bits | kSign;
  } else {
    const auto bits = static_cast<std::uint64_t>(static_cast<std::make_unsigned_t<Key>>(key));
    return std::is_signed_v<Key> ? bits ^ kSign : bits;
  }
}

struct NoValues {};

// Sorts by bits [begin_bit, end_bit), stable. With `spoilt`, the array of a DoubleBuffer that does
// not hold the result keeps no order.
template <typename Key, typename Val>
__global__ void radix_sort(Scratch scratch, const Key* from, Key* to, Key* spoilt,
                           const Val* values_from, Val* values_to, Val* values_spoilt,
                           std::int64_t size, int begin_bit, int end_bit, bool descending) {
  spoil(scratch);
  std::vector<std::uint64_t> digits;
  std::vector<Key> keys;
  std::vector<Val> values;
  const int bits = end_bit - begin_bit;
  for (std::int64_t i = 0; i < size; ++i) {
    keys.push_back(from[i]);
    digits.push_back(
        bits == 0 ? 0 : ordered_bits(keys.back()) >> begin_bit << (64 - bits) >> (64 - bits));
    if constexpr (!std::is_same_v<Val, NoValues>) values.push_back(values_from[i]);
  }
  std::vector<std::int64_t> order(static_cast<std::size_t>(size));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
    return descending ? digits[b] < digits[a] : digits[a] < digits[b];
  });
  for (std::int64_t i = 0; i < size; ++i) {
    if (spoilt) spoilt[i] = keys[order[size - 1 - i]];
    if constexpr (!std::is_same_v<Val, NoValues>) {
      if (values_spoilt) values_spoilt[i] = values[order[size - 1 - i]];
    }
  }
  for (std::int64_t i = 0; i < size; ++i) {
    to[i] = keys[order[i]];
    if constexpr (!std::is_same_v<Val, NoValues>) values_to[i] = values[order[i]];
  }
}

template <typename Key>
bool bits_fit(const Call& call, int begin_bit, int end_bit) {
  if (begin_bit >= 0 && begin_bit <= end_bit && end_bit <= 8 * static_cast<int>(sizeof(Key)))
    return true;
  complain(call.name, "the bits to sort by are not those of a key");
  return false;
}

template <typename Key, typename Val>
cudaError_t sort(const Call& call, const Key* from, Key* to, const Val* values_from, Val* values_to,
                 int begin_bit, int end_bit, bool descending) {
  if (!bits_fit<Key>(call, begin_bit, end_bit)) return cudaErrorInvalidValue;
  const std::int64_t with_values = std::is_same_v<Val, NoValues> ? 0 : call.size;
  return run(call,
             {reads(from, call.size), writes(to, call.size), reads(values_from, with_values),
              writes(values_to, with_values)},
             radix_sort<Key, Val>, from, to, static_cast<Key*>(nullptr), values_from, values_to,
             static_cast<Val*>(nullptr), call.size, begin_bit, end_bit, descending);
}

template <typename Key, typename Val>
cudaError_t sort(const Call& call, DoubleBuffer<Key>& keys, DoubleBuffer<Val>& values,
                 int begin_bit, int end_bit, bool descending) {
  if (!bits_fit<Key>(call, begin_bit, end_bit)) return cudaErrorInvalidValue;
  Key* const from = keys.Current();
  Val* const values_from = values.Current();
  const std::int64_t with_values = std::is_same_v<Val, NoValues> ? 0 : call.size;
  const std::initializer_list<Argument> arrays = {
      writes(from, call.size), writes(keys.Alternate(), call.size),
      writes(values_from, with_values), writes(values.Alternate(), with_values)};
  if (call.scratch && coin()) {
    keys.selector ^= 1;
    values.selector ^= 1;
  }
  return run(call, arrays, radix_sort<Key, Val>, static_cast<const Key*>(from), keys.Current(),
             keys.Alternate(), static_cast<const Val*>(values_from), values.Current(),
             values.Alternate(), call.size, begin_bit, end_bit, descending);
}

}  // namespace simulated

struct DeviceRadixSort {
#define SIMT_SORT(pairs, keys, descending)                                                         \
  template <typename Key, typename Val, typename Size>                                             \
  static cudaError_t pairs(void* scratch, std::size_t& bytes, const Key* keys_in, Key* keys_out,   \
                           const Val* values_in, Val* values_out, Size size, int begin_bit = 0,    \
                           int end_bit = 8 * sizeof(Key), cudaStream_t stream = nullptr) {         \
    return simulated::sort<Key, Val>({"cub::DeviceRadixSort::" #pairs, scratch, bytes,             \
                                      static_cast<std::int64_t>(size), stream},                    \
                                     keys_in, keys_out, values_in, values_out, begin_bit, end_bit, \
                                     descending);                                                  \
  }                                                                                                \
  template <typename Key, typename Val, typename Size>                                             \
  static cudaError_t pairs(void* scratch, std::size_t& bytes, DoubleBuffer<Key>& key_buffers,      \
                           DoubleBuffer<Val>& values, Size size, int begin_bit = 0,                \
                           int end_bit = 8 * sizeof(Key), cudaStream_t stream = nullptr) {         \
    return simulated::sort<Key, Val>({"cub::DeviceRadixSort::" #pairs, scratch, bytes,             \
                                      static_cast<std::int64_t>(size), stream},                    \
                                     key_buffers, values, begin_bit, end_bit, descending);         \
  }                                                                                                \
  template <typename Key, typename Size>                                                           \
  static cudaError_t keys(void* scratch, std::size_t& bytes, const Key* keys_in, Key* keys_out,    \
                          Size size, int begin_bit = 0, int end_bit = 8 * sizeof(Key),             \
                          cudaStream_t stream = nullptr) {                                         \
    return simulated::sort<Key, simulated::NoValues>(                                              \
        {"cub::DeviceRadixSort::" #keys, scratch, bytes, static_cast<std::int64_t>(size), stream}, \
        keys_in, keys_out, nullptr, nullptr, begin_bit, end_bit, descending);                      \
  }                                                                                                \
  template <typename Key, typename Size>                                                           \
  static cudaError_t keys(void* scratch, std::size_t& bytes, DoubleBuffer<Key>& key_buffers,       \
                          Size size, int begin_bit = 0, int end_bit = 8 * sizeof(Key),             \
                          cudaStream_t stream = nullptr) {                                         \
    DoubleBuffer<simulated::NoValues> none(nullptr, nullptr);                                      \
    return simulated::sort<Key, simulated::NoValues>(                                              \
        {"cub::DeviceRadixSort::" #keys, scratch, bytes, static_cast<std::int64_t>(size), stream}, \
        key_buffers, none, begin_bit, end_bit, descending);                                        \
  }
  SIMT_SORT(SortPairs, SortKeys, false)
  SIMT_SORT(SortPairsDescending, SortKeysDescending, true)
#undef SIMT_SORT
};

}  // namespace cub
