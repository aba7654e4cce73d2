// Bulk copies against the PTX manual (PTX ISA 9.1: copies 9.7.9.25.4 and .5, swizzles 5.5.7), on a
// GPU and on the simulated device.
#include "kernels/cuda/bulk_copy.cuh"

#include <gtest/gtest.h>

#include <bit>
#include <vector>

#include "kernels/cuda/primitives.cuh"
#include "kernels/cuda/tensor_map.h"
#include "serrate/buffer.h"
#include "src/core/launch.cuh"

namespace serrate {
namespace {

class BulkCopyTest : public testing::Test {
 protected:
  const Stream stream{Device::cuda(0)};
};

// Thread 0 brings tiles of 64 floats through a ring of two stages; all threads double them, and it
// takes them away from a place of their own.
__global__ void double_tiles(const float* from, float* to, int tiles) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  constexpr unsigned kTile = 64, kBytes = kTile * sizeof(float);
  auto* in = dynamic_shared<float>();                           // [2, kTile]
  float* const out = in + 2 * kTile;                            // [kTile]
  auto* const full = reinterpret_cast<Mbarrier*>(out + kTile);  // [2]
  const auto load = [&](unsigned tile) {
    mbarrier_arrive_expecting(full + tile % 2, kBytes);
    load_bulk(in + tile % 2 * kTile, from + tile * kTile, kBytes, full + tile % 2);
  };
  if (threadIdx.x == 0) {
    mbarrier_init(full, 1);
    mbarrier_init(full + 1, 1);
    fence_mbarrier_init();
    load(0);
  }
  __syncthreads();
  for (unsigned t = 0; t < static_cast<unsigned>(tiles); ++t) {
    if (threadIdx.x == 0) {
      if (t + 1 < static_cast<unsigned>(tiles)) load(t + 1);
      bulk_wait_read<0>();  // `out` is free again
    }
    __syncthreads();
    mbarrier_wait(full + t % 2, t / 2 % 2);
    out[threadIdx.x] = 2 * in[t % 2 * kTile + threadIdx.x];
    fence_async_proxy_shared();
    __syncthreads();
    if (threadIdx.x == 0) {
      store_bulk(to + t * kTile, out, kBytes);
      bulk_commit();
    }
  }
  if (threadIdx.x == 0) bulk_wait_read<0>();
#endif
}

TEST_F(BulkCopyTest, Bytes) {
  constexpr int kTiles = 5;
  std::vector<float> host(64 * kTiles), expected(64 * kTiles);
  for (int i = 0; i < 64 * kTiles; ++i) {
    host[i] = static_cast<float>(i) + 0.25f;
    expected[i] = 2 * host[i];
  }
  const Buffer<float> from(host, stream);
  Buffer<float> to(64 * kTiles, stream);
  launch(double_tiles, 1, 64, 3 * 64 * sizeof(float) + 16, stream, from.device_data(),
         to.device_data(), kTiles);
  EXPECT_EQ(to.to_host(stream), expected);
}

// Blocks add to the same floats.
__global__ void add_from_blocks(float* sums) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  auto* tile = dynamic_shared<float>();
  tile[threadIdx.x] = static_cast<float>(blockIdx.x + threadIdx.x);
  fence_async_proxy_shared();
  __syncthreads();
  if (threadIdx.x == 0) {
    add_bulk(sums, tile, 32 * sizeof(float));
    bulk_commit();
    bulk_wait<0>();
  }
#endif
}

TEST_F(BulkCopyTest, AddsBytes) {
  Buffer<float> sums(std::vector<float>(32, 0.5f), stream);
  launch(add_from_blocks, 4, 32, 32 * sizeof(float), stream, sums.device_data());
  const std::vector<float> host = sums.to_host(stream);
  for (int i = 0; i < 32; ++i) EXPECT_EQ(host[i], 0.5f + 0 + 1 + 2 + 3 + 4 * static_cast<float>(i));
}

template <int kRank>
struct Coordinates {
  int at[kRank];
};

// The box as it lies in shared memory.
template <int kRank>
__global__ void load_one_box(const __grid_constant__ CUtensorMap map, Coordinates<kRank> from,
                             std::uint32_t* words, unsigned bytes) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  auto* box = dynamic_shared<std::uint32_t>();
  auto* const full = reinterpret_cast<Mbarrier*>(box + bytes / 4);
  if (threadIdx.x == 0) {
    prefetch_tensor_map(&map);
    mbarrier_init(full, 1);
    fence_mbarrier_init();
    mbarrier_arrive_expecting(full, bytes);
    load_box(box, &map, from.at, full);
  }
  __syncthreads();
  mbarrier_wait(full, 0);
  for (unsigned i = threadIdx.x; i < bytes / 4; i += blockDim.x) words[i] = box[i];
#endif
}

// Writes or adds `words` as a box.
template <int kRank, bool kAdds>
__global__ void store_one_box(const __grid_constant__ CUtensorMap map, Coordinates<kRank> to,
                              const std::uint32_t* words, unsigned bytes) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  auto* box = dynamic_shared<std::uint32_t>();
  for (unsigned i = threadIdx.x; i < bytes / 4; i += blockDim.x) box[i] = words[i];
  fence_async_proxy_shared();
  __syncthreads();
  if (threadIdx.x == 0) {
    if constexpr (kAdds) {
      add_box(&map, to.at, box);
    } else {
      store_box(&map, to.at, box);
    }
    bulk_commit();
    bulk_wait<0>();
  }
#endif
}

// A tensor of up to five dimensions with some room behind each row, and the definition of a box.
template <int kRank>
struct Case {
  CUtensorMapDataType type;
  unsigned element;  // bytes
  std::array<std::uint64_t, kRank> sizes;
  std::array<std::uint32_t, kRank> box;
  std::array<int, kRank> from;
  CUtensorMapSwizzle swizzle = CU_TENSOR_MAP_SWIZZLE_NONE;
  std::array<std::uint32_t, kRank> element_strides = [] {
    std::array<std::uint32_t, kRank> ones;
    ones.fill(1);
    return ones;
  }();

  std::array<std::uint64_t, kRank - 1> strides() const {  // in bytes
    std::array<std::uint64_t, kRank - 1> result;
    std::uint64_t stride = (sizes[0] * element + 15) / 16 * 16 + 16;
    for (int d = 1; d < kRank; ++d) {
      result[d - 1] = stride;
      stride = stride * sizes[d] + 16;
    }
    return result;
  }
  std::uint64_t bytes() const { return strides()[kRank - 2] * (sizes[kRank - 1] + 1); }
  unsigned count(int d) const {
    return d == 0 ? box[0] : (box[d] + element_strides[d] - 1) / element_strides[d];
  }
  unsigned box_bytes() const {
    unsigned result = element;
    for (int d = 0; d < kRank; ++d) result *= count(d);
    return result;
  }
  CUtensorMap map(const void* data) const {
    return make_tensor_map<kRank>({.type = type,
                                   .data = data,
                                   .sizes = sizes,
                                   .strides = strides(),
                                   .box = box,
                                   .swizzle = swizzle,
                                   .element_strides = element_strides});
  }
  // Where element i of the box, counted from the innermost dimension, lies in the tensor, or -1;
  // and where in shared memory.
  std::int64_t in_tensor(unsigned i) const {
    std::int64_t offset = 0;
    for (int d = 0; d < kRank; ++d) {
      const std::int64_t at =
          from[d] + std::int64_t{i % count(d)} * (d == 0 ? 1 : element_strides[d]);
      i /= count(d);
      if (at < 0 || at >= static_cast<std::int64_t>(sizes[d])) return -1;
      offset += at * static_cast<std::int64_t>(d == 0 ? element : strides()[d - 1]);
    }
    return offset;
  }
  unsigned in_shared(unsigned i) const {
    // 5.5.7: chunks of 16 bytes change places by the number of their row of 128 bytes: 32B the two
    // of a pair by bit 0 of it, 64B four by two bits, 128B eight by three. Each table there starts
    // with 0 1 2 3 4 5 6 7, and ends, for 128B, with 7 6 5 4 3 2 1 0.
    const unsigned byte = i * element, chunk = byte / 16 % 8, row = byte / 128;
    const unsigned moves = swizzle == CU_TENSOR_MAP_SWIZZLE_NONE  ? 0
                           : swizzle == CU_TENSOR_MAP_SWIZZLE_32B ? row / 1 % 2
                           : swizzle == CU_TENSOR_MAP_SWIZZLE_64B ? row % 4
                                                                  : row % 8;
    return byte - chunk * 16 + (chunk ^ moves) * 16;
  }
};

template <int kRank>
Coordinates<kRank> coordinates(const Case<kRank>& c) {
  Coordinates<kRank> result;
  for (int d = 0; d < kRank; ++d) result.at[d] = c.from[d];
  return result;
}

std::vector<std::uint8_t> counted_bytes(std::uint64_t size) {
  std::vector<std::uint8_t> bytes(size);
  for (std::uint64_t i = 0; i < size; ++i)
    bytes[i] = static_cast<std::uint8_t>(i * 7 + i / 251 + 1);
  return bytes;
}

template <int kRank>
void expect_loaded(const Case<kRank>& c, const Stream& stream) {
  const std::vector<std::uint8_t> host = counted_bytes(c.bytes());
  const Buffer<std::uint8_t> tensor(host, stream);
  Buffer<std::uint32_t> words(c.box_bytes() / 4, stream);
  launch(load_one_box<kRank>, 1, 64, c.box_bytes() + 8, stream, c.map(tensor.device_data()),
         coordinates(c), words.device_data(), c.box_bytes());
  const std::vector<std::uint32_t> box = words.to_host(stream);
  for (unsigned i = 0; i < c.box_bytes() / c.element; ++i) {
    for (unsigned b = 0; b < c.element; ++b) {
      const std::int64_t at = c.in_tensor(i);
      const unsigned byte = c.in_shared(i) + b;
      ASSERT_EQ(box[byte / 4] >> byte % 4 * 8 & 0xFF, at < 0 ? 0u : host[at + b])
          << "element " << i << ", byte " << b;
    }
  }
}

TEST_F(BulkCopyTest, LoadsBoxes) {
  // Inside; past the end of rows and of columns; before the beginning; all outside.
  for (const std::array<int, 2> from :
       {std::array{4, 2}, std::array{20, 6}, std::array{-3, -2}, std::array{40, 1}}) {
    expect_loaded<2>({CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 4, {23, 9}, {8, 5}, from}, stream);
  }
  expect_loaded<2>({CU_TENSOR_MAP_DATA_TYPE_UINT8, 1, {40, 9}, {32, 4}, {13, 7}}, stream);
  expect_loaded<3>({CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, {20, 5, 4}, {16, 3, 2}, {7, 3, 1}},
                   stream);
  expect_loaded<4>({CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 4, {8, 3, 4, 3}, {4, 2, 3, 2}, {5, 2, -1, 2}},
                   stream);
  expect_loaded<5>(
      {CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 4, {8, 3, 4, 3, 2}, {4, 2, 2, 2, 2}, {2, 1, 3, 0, 1}},
      stream);
}

TEST_F(BulkCopyTest, SwizzlesBoxes) {
  expect_loaded<2>(
      {CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 4, {30, 40}, {8, 40}, {2, 1}, CU_TENSOR_MAP_SWIZZLE_32B},
      stream);
  expect_loaded<2>(
      {CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, {40, 40}, {32, 24}, {9, 1}, CU_TENSOR_MAP_SWIZZLE_64B},
      stream);
  expect_loaded<2>({CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                    2,
                    {70, 40},
                    {64, 24},
                    {8, 20},
                    CU_TENSOR_MAP_SWIZZLE_128B},
                   stream);
  expect_loaded<3>({CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
                    4,
                    {32, 3, 20},
                    {32, 1, 16},
                    {0, 2, 3},
                    CU_TENSOR_MAP_SWIZZLE_128B},
                   stream);
}

// Every second element of dimension 1: a box of 7 holds 4.
TEST_F(BulkCopyTest, ElementStrides) {
  expect_loaded<3>({CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
                    4,
                    {12, 9, 4},
                    {8, 7, 3},
                    {1, 1, 0},
                    CU_TENSOR_MAP_SWIZZLE_NONE,
                    {1, 2, 3}},
                   stream);
}

template <int kRank>
void expect_stored(const Case<kRank>& c, const Stream& stream) {
  const std::vector<std::uint8_t> before(c.bytes(), 0xAB);
  const std::vector<std::uint8_t> bytes = counted_bytes(c.box_bytes());
  std::vector<std::uint32_t> words(c.box_bytes() / 4);
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    words[i / 4] |= static_cast<std::uint32_t>(bytes[i]) << i % 4 * 8;
  }
  Buffer<std::uint8_t> tensor(before, stream);
  const Buffer<std::uint32_t> box(words, stream);
  launch(store_one_box<kRank, false>, 1, 64, c.box_bytes(), stream, c.map(tensor.device_data()),
         coordinates(c), box.device_data(), c.box_bytes());
  std::vector<std::uint8_t> expected = before;
  for (unsigned i = 0; i < c.box_bytes() / c.element; ++i) {
    for (unsigned b = 0; b < c.element && c.in_tensor(i) >= 0; ++b) {
      expected[c.in_tensor(i) + b] = bytes[c.in_shared(i) + b];
    }
  }
  EXPECT_EQ(tensor.to_host(stream), expected);
}

// What is outside is not written, nor is what lies between rows.
TEST_F(BulkCopyTest, StoresBoxes) {
  expect_stored<2>({CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 4, {23, 9}, {8, 5}, {20, 6}}, stream);
  expect_stored<2>({CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                    2,
                    {70, 40},
                    {64, 24},
                    {8, 20},
                    CU_TENSOR_MAP_SWIZZLE_128B},
                   stream);
  expect_stored<3>({CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, {20, 5, 4}, {16, 3, 2}, {7, 3, 1}},
                   stream);
  expect_stored<4>({CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 4, {8, 3, 4, 3}, {4, 2, 3, 2}, {5, 2, 1, 2}},
                   stream);
}

TEST_F(BulkCopyTest, AddsBoxes) {
  const Case<2> c{CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 4, {12, 6}, {8, 4}, {7, 3}};
  const std::uint64_t floats = c.bytes() / 4;
  Buffer<float> tensor(std::vector<float>(floats, 0.5f), stream);
  std::vector<std::uint32_t> words(c.box_bytes() / 4);
  std::vector<float> expected(floats, 0.5f);
  for (unsigned i = 0; i < words.size(); ++i) {
    words[i] = std::bit_cast<std::uint32_t>(static_cast<float>(i));
    if (c.in_tensor(i) >= 0) expected[c.in_tensor(i) / 4] += static_cast<float>(3 * i);
  }
  const Buffer<std::uint32_t> box(words, stream);
  launch(store_one_box<2, true>, 3, 64, c.box_bytes(), stream, c.map(tensor.device_data()),
         coordinates(c), box.device_data(), c.box_bytes());
  EXPECT_EQ(tensor.to_host(stream), expected);
}

TEST_F(BulkCopyTest, AddsBfloat16) {
  const Case<2> c{CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, {16, 4}, {8, 2}, {4, 1}};
  // 1.5 and 2.25 as bfloat16, whose sum, 3.75, is one too.
  Buffer<std::uint16_t> tensor(std::vector<std::uint16_t>(c.bytes() / 2, 0x3FC0), stream);
  const Buffer<std::uint32_t> box(std::vector<std::uint32_t>(8, 0x40104010), stream);
  launch(store_one_box<2, true>, 1, 32, c.box_bytes(), stream, c.map(tensor.device_data()),
         coordinates(c), box.device_data(), c.box_bytes());
  std::vector<std::uint16_t> expected(c.bytes() / 2, 0x3FC0);
  for (unsigned i = 0; i < 16; ++i) expected[c.in_tensor(i) / 2] = 0x4070;
  EXPECT_EQ(tensor.to_host(stream), expected);
}

// A map that the manual of cuTensorMapEncodeTiled does not allow.
TEST_F(BulkCopyTest, RefusesMaps) {
  const Buffer<std::uint8_t> tensor(4096, stream);
  const TensorMapArgs<2> good{.type = CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
                              .data = tensor.device_data(),
                              .sizes = {32, 8},
                              .strides = {128},
                              .box = {32, 8},
                              .swizzle = CU_TENSOR_MAP_SWIZZLE_128B};
  const auto is_refused = [](const TensorMapArgs<2>& args) {
    try {
      const CUtensorMap map = make_tensor_map(args);
      return map.opaque[0] != map.opaque[0];
    } catch (const Error&) {
      return true;
    }
  };
  EXPECT_FALSE(is_refused(good));
  const auto expect_refused = [&](auto change) {
    TensorMapArgs<2> args = good;
    change(args);
    EXPECT_TRUE(is_refused(args));
  };
  expect_refused([&](auto& args) { args.data = tensor.device_data() + 8; });
  expect_refused([](auto& args) { args.strides = {120}; });
  expect_refused([](auto& args) { args.strides = {std::uint64_t{1} << 40}; });
  expect_refused([](auto& args) { args.box = {33, 8}; });  // no multiple of 16 bytes
  expect_refused([](auto& args) { args.box = {64, 8}; });  // wider than the swizzle
  expect_refused([](auto& args) { args.box = {32, 257}; });
  expect_refused([](auto& args) { args.box = {32, 0}; });
  expect_refused([](auto& args) { args.sizes = {0, 8}; });
  expect_refused([](auto& args) { args.element_strides = {1, 9}; });
}

}  // namespace
}  // namespace serrate
