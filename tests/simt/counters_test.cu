// Counts of accesses against counts by hand.
#include "tests/support/simt/counters.h"

#include "kernels/cuda/primitives.cuh"
#include "serrate/kernels/embedding_lookup.h"
#include "serrate/kernels/embedding_update.h"
#include "tests/simt/planted_bug.h"
#include "tests/support/simt/stream.h"

namespace simt {
namespace {

using serrate::Buffer;
using serrate::DeviceMatrix;

__global__ void read_with_stride(const float* x, float* sums, int stride) {
  sums[threadIdx.x] = x[static_cast<int>(threadIdx.x) * stride];
}

TEST(Counters, SectorsOfAWarp) {
  const Array<float> x(std::vector<float>(32 * 8)), sums(32);
  for (const int stride : {1, 2, 8}) {
    reset_counters();
    run(read_with_stride, 1, 32, 0, nullptr, x.data(), sums.data(), stride);
    expect_nothing_found();
    const KernelCounters c = kernel_counters("read_with_stride");
    EXPECT_EQ(c.launches, 1u);
    EXPECT_EQ(c.threads, 32u);
    EXPECT_EQ(c.global_read_bytes, 128u);
    // 32 lanes of 4 bytes: 4 sectors when they lie together, one each when 32 bytes apart.
    EXPECT_EQ(c.global_read_sectors, stride == 8 ? 32u : 4u * static_cast<unsigned>(stride));
    EXPECT_EQ(c.global_written_bytes, 128u);
    EXPECT_EQ(c.global_written_sectors, 4u);
  }
}

__global__ void read_column(float* x, int pitch) {
  float* tile = serrate::dynamic_shared<float>();
  for (int row = 0; row < 32; ++row) tile[row * pitch + static_cast<int>(threadIdx.x)] = 1;
  __syncthreads();
  x[threadIdx.x] = tile[static_cast<int>(threadIdx.x) * pitch];
}

TEST(Counters, BankConflicts) {
  const Array<float> x(32);
  for (const int pitch : {32, 33, 34}) {
    reset_counters();
    run(read_column, 1, 32, static_cast<std::size_t>(32 * pitch * 4), nullptr, x.data(), pitch);
    expect_nothing_found();
    // A pitch of 32 words puts a column in one bank, 33 in 32 banks, 34 in 16 of them.
    const std::uint64_t expected = pitch == 32 ? 31u : pitch == 33 ? 0u : 1u;
    EXPECT_EQ(kernel_counters("read_column").shared_bank_conflicts, expected) << pitch;
    EXPECT_EQ(kernel_counters("read_column").shared_bytes, 33u * 32u * 4u);
  }
}

__global__ void copy_tile(const float* x) {
  auto* tile = serrate::dynamic_shared<float>();
  serrate::copy_async(tile + threadIdx.x * 4, x + threadIdx.x * 4);
  serrate::copy_async_commit();
  serrate::copy_async_wait<0>();
}

TEST(Counters, AsynchronousCopiesCountOnce) {
  const Array<float> x(std::vector<float>(32 * 4));
  reset_counters();
  run(copy_tile, 1, 32, 512, nullptr, x.data());
  expect_nothing_found();
  const KernelCounters c = kernel_counters("copy_tile");
  EXPECT_EQ(c.global_read_bytes, 512u);
  EXPECT_EQ(c.global_read_sectors, 16u);
  EXPECT_EQ(c.shared_bytes, 512u);
  EXPECT_EQ(c.shared_bank_conflicts, 0u);
}

TEST(Counters, HostSynchronizations) {
  cudaStream_t stream = nullptr;
  cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  const Array<float> x(std::vector<float>(4));
  std::vector<float> host(4);
  const std::uint64_t before = host_synchronizations(), copies = copies_to_host();
  cudaMemcpyAsync(x.data(), host.data(), 16, cudaMemcpyDefault, stream);
  EXPECT_EQ(host_synchronizations() - before, 0u);
  cudaMemcpyAsync(host.data(), x.data(), 16, cudaMemcpyDefault, stream);  // to pageable memory
  EXPECT_EQ(host_synchronizations() - before, 1u);
  EXPECT_EQ(copies_to_host() - copies, 1u);
  cudaStreamSynchronize(stream);
  EXPECT_EQ(host_synchronizations() - before, 2u);
  cudaStreamDestroy(stream);
}

class OpCounters : public testing::Test {
 protected:
  static constexpr std::int64_t kCols = 128;  // a row is 512 bytes: 16 sectors

  serrate::EmbeddingUpdate sgd(const serrate::GradientSegment& segment) {
    return {.table = DeviceMatrix<float>(table.device_data(), 8, kCols),
            .state = {},
            .second_moment = {},
            .segments = {&segment, 1},
            .optimizer = {.type = serrate::SparseOptimizer::kSgd}};
  }

  const serrate::Stream stream{serrate::Device::cuda(0)};
  Buffer<float> table = Buffer<float>::zeros(8 * kCols, stream);
  Buffer<float> rows = Buffer<float>::zeros(2 * kCols, stream);  // output, or its gradient
};

TEST_F(OpCounters, EmbeddingLookup) {
  const Buffer<std::int64_t> indices(std::vector<std::int64_t>{5, 0, 7, 2}, stream);
  const Buffer<std::int64_t> offsets(std::vector<std::int64_t>{0, 3, 4}, stream);
  const serrate::LookupSegment segment{DeviceMatrix<const float>(table.device_data(), 8, kCols),
                                       indices.span(),
                                       offsets.span(),
                                       {},
                                       DeviceMatrix<float>(rows.device_data(), 2, kCols)};
  reset_counters();
  embedding_lookup({&segment, 1}, stream);
  stream.synchronize();
  const KernelCounters c = kernel_counters("pool_bags<4>");
  EXPECT_EQ(c.launches, 1u);
  EXPECT_EQ(c.blocks, 1u);
  EXPECT_EQ(c.threads, 256u);  // 8 warps, the first two of which have a bag
  // The block reads the segment, 80 bytes; threads with a bag read three offsets; for each of 4 ids
  // a warp reads the id and a row.
  EXPECT_EQ(c.global_read_bytes, 80u + 64 * 3 * 8 + 4 * 32 * (8 + 16));
  EXPECT_EQ(c.global_read_sectors, 3u + 2 * 3 + 4 * (1 + 16));
  EXPECT_EQ(c.global_written_bytes, 2u * 512);
  EXPECT_EQ(c.global_written_sectors, 2u * 16);
}

// Rows of two bytes a column are half as many sectors, read and written.
TEST_F(OpCounters, TablesOfBf16) {
  Buffer<serrate::BFloat16> halves = Buffer<serrate::BFloat16>::zeros(8 * kCols, stream);
  const DeviceMatrix<serrate::BFloat16> bf16(halves.device_data(), 8, kCols);
  const DeviceMatrix<float> out(rows.device_data(), 2, kCols);
  const Buffer<std::int64_t> indices(std::vector<std::int64_t>{5, 0, 7, 2}, stream);
  const Buffer<std::int64_t> offsets(std::vector<std::int64_t>{0, 3, 4}, stream);
  const serrate::LookupSegment segment{bf16, indices.span(), offsets.span(), {}, out};
  reset_counters();
  embedding_lookup({&segment, 1}, stream);
  stream.synchronize();
  EXPECT_EQ(kernel_counters("pool_bags<4>").global_read_sectors, 3u + 2 * 3 + 4 * (1 + 8));

  const Buffer<std::int64_t> two(std::vector<std::int64_t>{3, 3}, stream);
  const Buffer<std::int64_t> bags(std::vector<std::int64_t>{0, 1, 2}, stream);
  const serrate::GradientSegment twice{two.span(), bags.span(), {}, out};
  serrate::EmbeddingUpdate args = sgd(twice);
  args.table = bf16;
  args.step = 1;
  serrate::RowGroups groups;
  group_gradients(args.segments, 8, groups, stream);
  reset_counters();
  embedding_update(args, groups, {}, 0, stream);
  stream.synchronize();
  const KernelCounters c = kernel_counters("update_rows<4, Sgd, BFloat16>");
  EXPECT_EQ(c.global_read_sectors, 1u + 2 * (1 + 1 + 16) + 8);
  EXPECT_EQ(c.global_written_sectors, 8u);
}

TEST_F(OpCounters, EmbeddingUpdate) {
  const Buffer<std::int64_t> indices(std::vector<std::int64_t>{3, 3}, stream);
  const Buffer<std::int64_t> offsets(std::vector<std::int64_t>{0, 1, 2}, stream);
  const serrate::GradientSegment segment{
      indices.span(), offsets.span(), {}, DeviceMatrix<const float>(rows.device_data(), 2, kCols)};
  const serrate::EmbeddingUpdate args = sgd(segment);
  serrate::RowGroups groups;
  reset_counters();
  group_gradients(args.segments, 8, groups, stream);
  embedding_update(args, groups, {}, 0, stream);
  stream.synchronize();
  const KernelCounters c = kernel_counters("update_rows<4, Sgd, float>");
  EXPECT_EQ(c.launches, 1u);
  EXPECT_EQ(c.threads, 256u);
  // The block reads the two keys. One warp has the row: it reads for each of two occurrences what
  // it is, where its gradient lies and a row of it; and the row.
  EXPECT_EQ(c.global_read_bytes, 2u * 8 + 2 * 32 * (8 + 16 + 16) + 512);
  EXPECT_EQ(c.global_read_sectors, 1u + 2 * (1 + 1 + 16) + 16);
  EXPECT_EQ(c.global_written_bytes, 512u);
  EXPECT_EQ(c.global_written_sectors, 16u);
  // The gradient, the keys, and in two warps their own key and the next or the one before.
  EXPECT_EQ(c.shared_bytes, 2u * 512 + 2 * 8 + 2 * 32 * (8 + 8));
  EXPECT_EQ(c.shared_bank_conflicts, 0u);

  // The block reads the segment, 64 bytes. Two threads find its first and last bag: each reads
  // where the bags begin and end and the bag that it guesses, the first one more. Then the block
  // copies the two offsets in between, and two threads read their ids.
  const KernelCounters numbers = kernel_counters("number_occurrences");
  EXPECT_EQ(numbers.global_read_bytes, 64u + (4 + 3) * 8 + 2 * 8 + 2 * 8);
  EXPECT_EQ(numbers.global_written_bytes, 2u * 8);
  EXPECT_EQ(numbers.global_written_sectors, 1u);
}

// 19 warps add up 256 of the row's 5,000 occurrences each; the last of them to be done reads these
// sums and 136 occurrences more.
TEST_F(OpCounters, EmbeddingUpdateOfAHotRow) {
  const Buffer<std::int64_t> indices(std::vector<std::int64_t>(5000, 3), stream);
  const Buffer<std::int64_t> offsets(std::vector<std::int64_t>{0, 5000}, stream);
  const serrate::GradientSegment segment{
      indices.span(), offsets.span(), {}, DeviceMatrix<const float>(rows.device_data(), 1, kCols)};
  const serrate::EmbeddingUpdate args = sgd(segment);
  serrate::RowGroups groups;
  group_gradients(args.segments, 8, groups, stream);
  reset_counters();
  embedding_update(args, groups, {}, 0, stream);
  stream.synchronize();
  const std::uint64_t occurrence = 32 * (8 + 16 + 16);  // as above
  const KernelCounters c = kernel_counters("update_rows<4, Sgd, float>");
  EXPECT_EQ(c.launches, 1u);
  EXPECT_EQ(c.global_written_bytes, 19u * 512 + 512 + 20 * 4);  // 19 are counted, and then none
  // Besides, blocks read the keys of their 8 warps and of 3 neighbours, and where rows begin and
  // end is searched for.
  const std::uint64_t least = 5000 * occurrence + 19 * 512 + 512 + 625 * 10 * 8;
  EXPECT_GE(c.global_read_bytes, least);
  EXPECT_LT(c.global_read_bytes, least + least / 32);
}

}  // namespace
}  // namespace simt
