#pragma once

#include <algorithm>
#include <cub/device/scratch.cuh>
#include <cub/util_type.cuh>
#include <vector>

namespace cub {
namespace simulated {

// Sorts by bits [begin_bit, end_bit), stable. The array that does not hold the result is spoilt.
template <typename Key>
__global__ void radix_sort_keys(std::uint8_t* scratch, Key* from, Key* to, Key* other,
                                std::int64_t size, int begin_bit, int end_bit) {
  spoil(scratch);
  std::vector<Key> keys;
  for (std::int64_t i = 0; i < size; ++i) keys.push_back(from[i]);
  const int bits = end_bit - begin_bit, all = 8 * static_cast<int>(sizeof(Key));
  const auto digit = [&](Key key) {
    return bits == 0 ? 0 : (key >> begin_bit) << (all - bits) >> (all - bits);
  };
  std::stable_sort(keys.begin(), keys.end(), [&](Key a, Key b) { return digit(a) < digit(b); });
  for (std::int64_t i = 0; i < size; ++i) other[i] = static_cast<Key>(~keys[size - 1 - i]);
  for (std::int64_t i = 0; i < size; ++i) to[i] = keys[i];
}

}  // namespace simulated

struct DeviceRadixSort {
  template <typename Key>
  static cudaError_t SortKeys(void* scratch, std::size_t& bytes, DoubleBuffer<Key>& keys,
                              std::int64_t size, int begin_bit = 0, int end_bit = 8 * sizeof(Key),
                              cudaStream_t stream = nullptr) {
    if (!scratch) {
      bytes = simulated::kScratchBytes;
      return cudaSuccess;
    }
    Key* const from = keys.Current();
    if (simulated::coin()) keys.selector ^= 1;
    return simulated::run(simulated::radix_sort_keys<Key>, scratch, bytes, stream, from,
                          keys.Current(), keys.Alternate(), size, begin_bit, end_bit);
  }
};

}  // namespace cub
