// CUB on the simulated device: values by hand or by the host's algorithms, and planted bugs.
#include <thrust/iterator/counting_iterator.h>
#include <thrust/iterator/transform_iterator.h>
#include <algorithm>
#include <cub/cub.cuh>
#include <numeric>
#include <random>

#include "tests/simt/planted_bug.h"

namespace simt {
namespace {

const std::string kFile = "cub_test.cu";

// Both calls, with memory of exactly the size that the first asks for.
template <typename Call>
cudaError_t twice(Call call) {
  std::size_t bytes = 0;
  if (const cudaError_t error = call(nullptr, bytes); error != cudaSuccess) return error;
  const Array<std::uint8_t> memory(bytes);
  const cudaError_t error = call(memory.data(), bytes);
  cudaDeviceSynchronize();
  return error;
}

std::vector<int> random_ints(std::size_t size, int below) {
  std::mt19937 random(5);
  std::vector<int> values(size);
  for (int& v : values) v = static_cast<int>(random() % static_cast<unsigned>(below));
  return values;
}

TEST(Cub, SortsPairsByBitsAndKeepsTheOrderOfEquals) {
  // Keys 0x12, 0x31, 0x22, 0x11 by their low digit: 31, 11 (as they come), 12, 22.
  const Array<std::uint32_t> keys({0x12, 0x31, 0x22, 0x11}), sorted(4);
  const Array<int> values({0, 1, 2, 3}), out(4);
  twice([&](void* memory, std::size_t& bytes) {
    return cub::DeviceRadixSort::SortPairs(memory, bytes, keys.data(), sorted.data(), values.data(),
                                           out.data(), 4, 0, 4);
  });
  EXPECT_EQ(sorted.host(), (std::vector<std::uint32_t>{0x31, 0x11, 0x12, 0x22}));
  EXPECT_EQ(out.host(), (std::vector<int>{1, 3, 0, 2}));
  EXPECT_EQ(keys.host()[0], 0x12u);
  expect_nothing_found();
}

TEST(Cub, SortsSignedAndFloatingKeys) {
  const Array<float> keys({1, -0.5f, 0, -3, 7}), sorted(5);
  twice([&](void* memory, std::size_t& bytes) {
    return cub::DeviceRadixSort::SortKeys(memory, bytes, keys.data(), sorted.data(), 5);
  });
  EXPECT_EQ(sorted.host(), (std::vector<float>{-3, -0.5f, 0, 1, 7}));
  const Array<std::int64_t> a({5, -1, std::int64_t{1} << 40, -7}), b(4);
  cub::DoubleBuffer<std::int64_t> both(a.data(), b.data());
  twice([&](void* memory, std::size_t& bytes) {
    return cub::DeviceRadixSort::SortKeysDescending(memory, bytes, both, 4);
  });
  const auto result = both.Current() == a.data() ? a.host() : b.host();
  EXPECT_EQ(result, (std::vector<std::int64_t>{std::int64_t{1} << 40, 5, -1, -7}));
  expect_nothing_found();
}

TEST(Cub, ScansAsTheInputsType) {
  const std::vector<int> values = random_ints(100, 50);
  const Array<int> in(values), out(100);
  twice([&](void* memory, std::size_t& bytes) {
    return cub::DeviceScan::ExclusiveSum(memory, bytes, in.data(), out.data(), 100);
  });
  std::vector<int> expected(100);
  std::exclusive_scan(values.begin(), values.end(), expected.begin(), 0);
  EXPECT_EQ(out.host(), expected);
  twice([&](void* memory, std::size_t& bytes) {
    return cub::DeviceScan::InclusiveSum(memory, bytes, in.data(), in.data(), 100);
  });
  std::inclusive_scan(values.begin(), values.end(), expected.begin());
  EXPECT_EQ(in.host(), expected);
  // Four times 2^30 in int is 0 after the last, however wide the output.
  const Array<unsigned> big(std::vector<unsigned>(4, 1u << 30));
  const Array<std::int64_t> wide(4);
  twice([&](void* memory, std::size_t& bytes) {
    return cub::DeviceScan::InclusiveSum(memory, bytes, big.data(), wide.data(), 4);
  });
  EXPECT_EQ(wide.host(), (std::vector<std::int64_t>{1 << 30, 1ll << 31, 3ll << 30, 0}));
  const Array<int> peaks({3, 1, 4, 1, 5}), running(5);
  twice([&](void* memory, std::size_t& bytes) {
    return cub::DeviceScan::ExclusiveScan(memory, bytes, peaks.data(), running.data(),
                                          cuda::maximum<>{}, 2, 5);
  });
  EXPECT_EQ(running.host(), (std::vector<int>{2, 3, 3, 4, 4}));
  expect_nothing_found();
}

struct IsOdd {
  __host__ __device__ bool operator()(int x) const { return x % 2 != 0; }
};
struct Square {
  __host__ __device__ std::int64_t operator()(int x) const { return std::int64_t{x} * x; }
};

TEST(Cub, Selects) {
  const Array<int> in({4, 7, 7, 2, 9, 9, 9}), out(7), count(1);
  const Array<std::uint8_t> flags({1, 0, 1, 0, 0, 0, 1});
  const auto selected = [&] {
    auto values = out.host();
    values.resize(static_cast<std::size_t>(count.host()[0]));
    return values;
  };
  cudaMemset(out.data(), 0, 28);
  twice([&](void* memory, std::size_t& bytes) {
    return cub::DeviceSelect::If(memory, bytes, in.data(), out.data(), count.data(), 7, IsOdd{});
  });
  EXPECT_EQ(selected(), (std::vector<int>{7, 7, 9, 9, 9}));
  twice([&](void* memory, std::size_t& bytes) {
    return cub::DeviceSelect::Flagged(memory, bytes, in.data(), flags.data(), out.data(),
                                      count.data(), 7);
  });
  EXPECT_EQ(selected(), (std::vector<int>{4, 7, 9}));
  twice([&](void* memory, std::size_t& bytes) {
    return cub::DeviceSelect::Unique(memory, bytes, in.data(), out.data(), count.data(), 7);
  });
  EXPECT_EQ(selected(), (std::vector<int>{4, 7, 2, 9}));
  const Array<int> places(7);
  twice([&](void* memory, std::size_t& bytes) {
    return cub::DeviceSelect::UniqueByKey(memory, bytes, in.data(),
                                          thrust::counting_iterator<int>(0), out.data(),
                                          places.data(), count.data(), 7);
  });
  EXPECT_EQ(selected(), (std::vector<int>{4, 7, 2, 9}));
  EXPECT_EQ(places.host()[3], 4);
  twice([&](void* memory, std::size_t& bytes) {
    return cub::DeviceSelect::If(memory, bytes, in.data(), count.data(), 7, IsOdd{});
  });
  EXPECT_EQ(count.host()[0], 5);
  EXPECT_EQ(in.host()[0], 7);
  // Nothing to select from is a count of 0.
  twice([&](void* memory, std::size_t& bytes) {
    return cub::DeviceSelect::If(memory, bytes, in.data(), out.data(), count.data(), 0, IsOdd{});
  });
  EXPECT_EQ(count.host()[0], 0);
  take_findings();  // places[4..] and the like were never written
}

TEST(Cub, Reduces) {
  const std::vector<int> values = random_ints(77, 1000);
  const Array<int> in(values);
  const Array<std::int64_t> sum(1);
  const Array<int> most(1), least(1);
  twice([&](void* memory, std::size_t& bytes) {
    return cub::DeviceReduce::Sum(memory, bytes, in.data(), sum.data(), 77);
  });
  twice([&](void* memory, std::size_t& bytes) {
    return cub::DeviceReduce::Max(memory, bytes, in.data(), most.data(), 77);
  });
  twice([&](void* memory, std::size_t& bytes) {
    return cub::DeviceReduce::Min(memory, bytes, in.data(), least.data(), 77);
  });
  EXPECT_EQ(sum.host()[0], std::accumulate(values.begin(), values.end(), std::int64_t{0}));
  EXPECT_EQ(most.host()[0], *std::max_element(values.begin(), values.end()));
  EXPECT_EQ(least.host()[0], *std::min_element(values.begin(), values.end()));
  const auto squares = thrust::make_transform_iterator(in.data(), Square{});
  twice([&](void* memory, std::size_t& bytes) {
    return cub::DeviceReduce::Sum(memory, bytes, squares, sum.data(), 3);
  });
  EXPECT_EQ(sum.host()[0], Square{}(values[0]) + Square{}(values[1]) + Square{}(values[2]));
  expect_nothing_found();
}

TEST(Cub, ReducesSegmentsRunsAndKeys) {
  const Array<float> in({1, 2, 3, 4, 5, 6});
  const Array<int> offsets({0, 2, 2, 6});
  const Array<float> sums(3);
  twice([&](void* memory, std::size_t& bytes) {
    return cub::DeviceSegmentedReduce::Sum(memory, bytes, in.data(), sums.data(), 3, offsets.data(),
                                           offsets.data() + 1);
  });
  EXPECT_EQ(sums.host(), (std::vector<float>{3, 0, 18}));
  const Array<int> keys({5, 5, 1, 1, 1, 5}), unique(3), lengths(3), runs(1);
  twice([&](void* memory, std::size_t& bytes) {
    return cub::DeviceRunLengthEncode::Encode(memory, bytes, keys.data(), unique.data(),
                                              lengths.data(), runs.data(), 6);
  });
  EXPECT_EQ(unique.host(), (std::vector<int>{5, 1, 5}));
  EXPECT_EQ(lengths.host(), (std::vector<int>{2, 3, 1}));
  EXPECT_EQ(runs.host()[0], 3);
  twice([&](void* memory, std::size_t& bytes) {
    return cub::DeviceReduce::ReduceByKey(memory, bytes, keys.data(), unique.data(), in.data(),
                                          sums.data(), runs.data(), cuda::std::plus<>{}, 6);
  });
  EXPECT_EQ(sums.host(), (std::vector<float>{3, 12, 6}));
  expect_nothing_found();
}

__global__ void reduce_block(const int* in, int* sums, int* scanned, int valid) {
  using Reduce = cub::BlockReduce<int, 96>;
  using Scan = cub::BlockScan<int, 96>;
  __shared__ Reduce::TempStorage reduce_storage;
  __shared__ Scan::TempStorage scan_storage;
  const auto t = static_cast<int>(threadIdx.x);
  const int all = Reduce(reduce_storage).Sum(in[t]);
  if (t == 0) sums[0] = all;
  __syncthreads();
  const int some = Reduce(reduce_storage).Reduce(in[t], cuda::maximum<>{}, valid);
  if (t == 0) sums[1] = some;
  int total;
  Scan(scan_storage).ExclusiveSum(in[t], scanned[t], total);
  if (t == 5) sums[2] = total;
  using Warp = cub::WarpReduce<int, 16>;
  __shared__ Warp::TempStorage warp_storage[6];
  const int part = Warp(warp_storage[t / 16]).Sum(in[t]);
  if (t % 16 == 0) sums[3 + t / 16] = part;
}

TEST(Cub, BlocksAndWarps) {
  const std::vector<int> values = random_ints(96, 100);
  const Array<int> in(values), sums(9), scanned(96);
  run(reduce_block, 1, 96, 0, nullptr, in.data(), sums.data(), scanned.data(), 10);
  const int total = std::accumulate(values.begin(), values.end(), 0);
  const auto result = sums.host();
  EXPECT_EQ(result[0], total);
  EXPECT_EQ(result[1], *std::max_element(values.begin(), values.begin() + 10));
  EXPECT_EQ(result[2], total);
  for (int i = 0; i < 6; ++i) {
    EXPECT_EQ(result[3 + i],
              std::accumulate(values.begin() + 16 * i, values.begin() + 16 * i + 16, 0));
  }
  std::vector<int> expected(96);
  std::exclusive_scan(values.begin(), values.end(), expected.begin(), 0);
  EXPECT_EQ(scanned.host(), expected);
  expect_nothing_found();
}

// Planted bugs.

TEST(PlantedCub, TemporaryMemoryOfASmallerProblem) {
  const Array<int> in(std::vector<int>(64, 1)), out(64);
  std::size_t bytes = 0;
  cub::DeviceScan::ExclusiveSum(nullptr, bytes, in.data(), out.data(), 32);
  const Array<std::uint8_t> memory(bytes);
  EXPECT_EQ(cub::DeviceScan::ExclusiveSum(memory.data(), bytes, in.data(), out.data(), 32),
            cudaSuccess);
  expect_nothing_found();
  EXPECT_EQ(cub::DeviceScan::ExclusiveSum(memory.data(), bytes, in.data(), out.data(), 64),
            cudaErrorInvalidValue);
  expect_found_on_host(Kind::kBadCall, "cub::DeviceScan::ExclusiveSum: the temporary memory is");
}

TEST(PlantedCub, LessAllocatedThanSaid) {
  const Array<int> in(std::vector<int>(64, 1)), out(1);
  std::size_t bytes = 0;
  cub::DeviceReduce::Sum(nullptr, bytes, in.data(), out.data(), 64);
  const Array<std::uint8_t> memory(bytes - 1);
  cub::DeviceReduce::Sum(memory.data(), bytes, in.data(), out.data(), 64);
  const auto findings = found();
  ASSERT_FALSE(findings.empty());
  EXPECT_EQ(to_string(findings[0].kind), std::string(to_string(Kind::kOutOfBounds)));
}

TEST(PlantedCub, TemporaryMemoryThatIsAnArgument) {
  const Array<std::uint8_t> memory(std::vector<std::uint8_t>(8192, 0));
  auto* const in = reinterpret_cast<int*>(memory.data() + 256);
  const Array<int> out(16);
  std::size_t bytes = 8192;
  EXPECT_EQ(cub::DeviceScan::ExclusiveSum(memory.data(), bytes, in, out.data(), 16),
            cudaErrorInvalidValue);
  expect_found_on_host(Kind::kBadCall, "the temporary memory overlaps an argument");
}

TEST(PlantedCub, OutputThatIsTheInput) {
  const Array<int> in({3, 1, 2}), count(1);
  EXPECT_EQ(twice([&](void* memory, std::size_t& bytes) {
              return cub::DeviceRadixSort::SortKeys(memory, bytes, in.data(), in.data() + 1, 2);
            }),
            cudaErrorInvalidValue);
  expect_found_on_host(Kind::kBadCall, "SortKeys: an output overlaps another argument");
  EXPECT_EQ(twice([&](void* memory, std::size_t& bytes) {
              return cub::DeviceSelect::If(memory, bytes, in.data(), in.data(), count.data(), 3,
                                           IsOdd{});
            }),
            cudaErrorInvalidValue);
  expect_found_on_host(Kind::kBadCall, "an output overlaps another argument");
}

TEST(PlantedCub, OneTemporaryMemoryInTwoStreams) {
  cudaStream_t streams[2];
  for (auto& s : streams) cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking);
  const Array<int> in(std::vector<int>(64, 1)), out(128);
  std::size_t bytes = 0;
  cub::DeviceScan::ExclusiveSum(nullptr, bytes, in.data(), out.data(), 64);
  const Array<std::uint8_t> memory(bytes);
  for (int i = 0; i < 2; ++i) {
    cub::DeviceScan::ExclusiveSum(memory.data(), bytes, in.data(), out.data() + 64 * i, 64,
                                  streams[0]);
  }
  expect_nothing_found();
  for (int i = 0; i < 2; ++i) {
    cub::DeviceScan::ExclusiveSum(memory.data(), bytes, in.data(), out.data() + 64 * i, 64,
                                  streams[i]);
  }
  const auto findings = found();
  ASSERT_FALSE(findings.empty());
  EXPECT_EQ(to_string(findings[0].kind), std::string(to_string(Kind::kStreamRace)));
  for (auto& s : streams) cudaStreamDestroy(s);
}

TEST(PlantedCub, InputThatNothingWrote) {
  const Array<int> in(8), out(8);
  twice([&](void* memory, std::size_t& bytes) {
    return cub::DeviceScan::ExclusiveSum(memory, bytes, in.data(), out.data(), 8);
  });
  const auto findings = found();
  ASSERT_FALSE(findings.empty());
  EXPECT_EQ(to_string(findings[0].kind), std::string(to_string(Kind::kNotWritten)));
}

TEST(PlantedCub, BitsThatAKeyDoesNotHave) {
  const Array<std::uint32_t> in({3, 1}), out(2);
  std::size_t bytes = 0;
  EXPECT_EQ(cub::DeviceRadixSort::SortKeys(nullptr, bytes, in.data(), out.data(), 2, 8, 40),
            cudaErrorInvalidValue);
  expect_found_on_host(Kind::kBadCall, "the bits to sort by");
}

__global__ void reuse_storage(const int* in, int* out, bool with_barrier) {
  using Reduce = cub::BlockReduce<int, 64>;
  __shared__ Reduce::TempStorage storage;
  const int a = Reduce(storage).Sum(in[threadIdx.x]);
  if (with_barrier) __syncthreads();
  const int b = Reduce(storage).Sum(in[threadIdx.x]);
  if (threadIdx.x == 0) *out = a + b;
}

TEST(PlantedCub, StorageUsedAgainWithoutABarrier) {
  const Array<int> in(std::vector<int>(64, 1)), out(1);
  run(reuse_storage, 1, 64, 0, nullptr, in.data(), out.data(), true);
  expect_nothing_found();
  EXPECT_EQ(out.host()[0], 128);
  run(reuse_storage, 1, 64, 0, nullptr, in.data(), out.data(), false);
  const auto findings = found();
  ASSERT_FALSE(findings.empty());
  EXPECT_EQ(to_string(findings[0].kind), std::string(to_string(Kind::kSharedRace)));
  EXPECT_EQ(findings[0].kernel, "reuse_storage");
}

__global__ void result_of_all_threads(const int* in, int* out, bool broadcast) {
  using Reduce = cub::BlockReduce<int, 64>;
  __shared__ Reduce::TempStorage storage;
  __shared__ int sum;
  const int mine = Reduce(storage).Sum(in[threadIdx.x]);
  if (threadIdx.x == 0) sum = mine;
  __syncthreads();
  out[threadIdx.x] = broadcast ? sum : mine;
}

TEST(PlantedCub, OnlyThreadZeroHasTheResult) {
  const Array<int> in(std::vector<int>(64, 1)), out(64);
  run(result_of_all_threads, 1, 64, 0, nullptr, in.data(), out.data(), true);
  EXPECT_EQ(out.host(), std::vector<int>(64, 64));
  run(result_of_all_threads, 1, 64, 0, nullptr, in.data(), out.data(), false);
  EXPECT_EQ(out.host()[0], 64);
  EXPECT_EQ(out.host()[1], -1);
}

__global__ void of_64_threads(int* out) {
  using Scan = cub::BlockScan<int, 64>;
  __shared__ Scan::TempStorage storage;
  Scan(storage).InclusiveSum(1, out[threadIdx.x]);  // bug: block size
}

TEST(PlantedCub, BlockOfAnotherSize) {
  const Array<int> out(128);
  run(of_64_threads, 1, 64, 0, nullptr, out.data());
  expect_nothing_found();
  run(of_64_threads, 1, 32, 0, nullptr, out.data());
  expect_found({Kind::kBadInstruction, "of_64_threads", any_of(32), kFile, "block size"});
}

__global__ void warps_share_storage(int* out, int storages) {
  using Warp = cub::WarpReduce<int>;
  __shared__ Warp::TempStorage storage[2];
  const auto warp = static_cast<int>(threadIdx.x / 32);
  const int sum = Warp(storage[warp % storages]).Sum(1);
  if (threadIdx.x % 32 == 0) out[warp] = sum;
}

TEST(PlantedCub, WarpsThatShareStorage) {
  const Array<int> out(2);
  run(warps_share_storage, 1, 64, 0, nullptr, out.data(), 2);
  EXPECT_EQ(out.host(), (std::vector<int>{32, 32}));
  expect_nothing_found();
  run(warps_share_storage, 1, 64, 0, nullptr, out.data(), 1);
  const auto findings = found();
  ASSERT_FALSE(findings.empty());
  EXPECT_EQ(to_string(findings[0].kind), std::string(to_string(Kind::kSharedRace)));
}

}  // namespace
}  // namespace simt
