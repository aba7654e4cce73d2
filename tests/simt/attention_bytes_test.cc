// What attention on tensor cores moves and multiplies, as the simulated device counts it, against
// the least that it could: every tensor once. There is no cache in the count.
#include "tests/simt/attention_bytes.h"

#include "kernels/attention/cuda/work_list.h"

namespace serrate {
namespace {

TEST_F(AttentionBytes, SequencesOfOneTileAreReadOnce) {
  for (const std::int64_t head_dim : {32, 64, 128, 256}) {
    for (const std::int64_t length : {16, 32, 64}) {
      const std::int64_t columns = head_dim == 32 ? 1 << 16 : 1 << 15;
      expect_near_floor(length, columns / (length * head_dim), head_dim);
    }
  }
}

TEST_F(AttentionBytes, SequencesInTf32AreReadOnce) {
  for (const std::int64_t head_dim : {32, 64, 256}) {
    for (const std::int64_t length : {16, 64}) {
      if (head_dim > 32 && !has_shared_memory_of_sm_90()) continue;
      expect_near_floor(length, (1 << 14) / (length * head_dim), head_dim, 1.1, DataType::kFloat32);
    }
  }
  if (!has_shared_memory_of_sm_90()) GTEST_SKIP() << "what fits depends on shared memory";
  expect_near_floor(256, 4, 64, 0, DataType::kFloat32);
  expect_near_floor(128, 4, 128, 0, DataType::kFloat32);
}

// Eight of them and of heads: enough for each to be one block's. The backward has room for five
// tiles of 64 queries of 64 columns with their gradients, or two of 128; Hopper's, of which there
// is a test below, for more.
TEST_F(AttentionBytes, SequencesOfSeveralTilesAreReadOnce) {
  if (!has_shared_memory_of_sm_90()) GTEST_SKIP() << "what fits depends on shared memory";
  expect_near_floor(128, 16, 32);
  expect_near_floor(128, 8, 64);
  expect_near_floor(256, 4, 64);
  expect_near_floor(512, 4, 64, 0);
  expect_near_floor(128, 4, 128);
  expect_near_floor(272, 4, 128, 0);
  expect_near_floor(512, 4, 128, 0);  // 3.72: counted once, as it takes long
}

// Longer ones are one or two blocks' of Hopper's backward, in any batch: five products of the tiles
// of 64 x 64 that the mask leaves, 32 keys at a time. Those of d_k and d_v have 64 columns and 32
// keys.
TEST_F(AttentionBytes, WholeSequencesOnHopperBackward) {
  int major = 0;
  EXPECT_EQ(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0), cudaSuccess);
  if (major != 9) GTEST_SKIP() << "wgmma is sm_90's";
  for (const auto& [head_dim, blocks] :
       {std::pair{64, 1}, {128, 1}, {256, 1}, {128, 2}, {256, 2}}) {
    const std::int64_t length = blocks * (32 << 10) / head_dim, tiles = length / 64;
    const std::unique_ptr<Batch> batch = batch_of(length, 1, head_dim);
    jagged_attention_forward(batch->forward, stream_);
    const Counted counted = count([&] { jagged_attention_backward(batch->backward, stream_); });
    const double bytes =
        counted.bytes / static_cast<double>(kHeads * length * (8 * head_dim * 2 + 4));
    std::cout << "backward, length " << length << ", head_dim " << head_dim << ": " << bytes
              << " x the bytes\n";
    EXPECT_GE(bytes, 1) << "the floor is wrong";
    EXPECT_LE(bytes, 1.1);
    const std::int64_t products = 2 * (2 * head_dim / 16 + 2 + 2 * 4 * head_dim / 64) * 4;
    EXPECT_EQ(counted.products, kHeads * tiles * (tiles + 1) / 2 * products);
    EXPECT_EQ(counted.bank_conflicts, 0);
  }
}

// Without a mask products are what the lengths' last tiles leave: a warp has 16 queries, and keys
// come 16 at a time.
TEST_F(AttentionBytes, ProductsOfEveryLength) {
  for (const auto& [length, most] :
       {std::pair{50, 1.64}, {100, 1.64}, {200, 1.64}, {300, 1.14}, {500, 1.05}}) {
    const std::unique_ptr<Batch> batch = batch_of(length, 1, 64);
    batch->forward.mask = FullMask{}, batch->forward.plan = nullptr;
    const Counted counted = count([&] { jagged_attention_forward(batch->forward, stream_); });
    const double products =
        counted.products / (kHeads * 2.0 * length * length * 64 / (16 * 8 * 16));
    std::cout << "full, length " << length << ": " << products << " x the products\n";
    EXPECT_GE(products, 1) << "not all products were counted";
    EXPECT_LE(products, most);
  }
}

// Gradients of a bias that sequences share or of a table by place take a kernel of their own, with
// two more products of every tile.
TEST_F(AttentionBytes, GradientsOfBiasesTakeTwoMoreProducts) {
  constexpr std::int64_t kLength = 128, kBatch = 2, kDim = 64;
  const std::unique_ptr<Batch> batch = batch_of(kLength, kBatch, kDim);
  auto bias = Buffer<float>::zeros(kHeads * kLength * kLength, stream_);
  auto d_bias = Buffer<float>::zeros(bias.size(), stream_);
  const Buffer<std::int64_t> places(std::vector<std::int64_t>{-1, 1, 2, 4, 8, 16, 32, 64}, stream_);
  auto table = Buffer<float>::zeros(9, stream_), d_table = Buffer<float>::zeros(9, stream_);
  AttentionBackward call = batch->backward;
  call.forward.plan = nullptr;
  call.forward.bias = {bias.span(), 0, kLength * kLength, kLength, 1};
  call.forward.position_table = {table.span(), places.span()};
  jagged_attention_forward(call.forward, stream_);
  const auto backward = [&] { return count([&] { jagged_attention_backward(call, stream_); }); };
  const Counted without = backward();
  const auto expect_more = [&] {
    constexpr double kTiles = kBatch * kHeads * 3, kProducts = 2 * 64 * 64 * kDim / (16 * 8 * 16);
    const Counted with = backward();
    EXPECT_EQ(with.products - without.products, kTiles * kProducts);
    EXPECT_EQ(with.bank_conflicts, 0);
  };
  call.d_bias = d_bias.span();
  expect_more();
  call.d_bias = {}, call.d_position_table = d_table.span();
  expect_more();
}

// Shared queries have d_q of every sequence in float32, which is read and summed.
TEST_F(AttentionBytes, SharedQueriesAreSummedOverTheBatch) {
  constexpr std::int64_t kQueries = 16, kKeys = 64, kBatch = 8, kDim = 64;
  const std::unique_ptr<Batch> batch = batch_of(kKeys, kBatch, kDim);
  AttentionBackward call = batch->backward;
  AttentionForward& forward = call.forward;
  Buffer<float> lse(kBatch * kQueries * kHeads, stream_);
  forward.plan = nullptr, forward.mask = FullMask{}, forward.lse = lse.span();
  forward.query_offsets = {}, forward.num_shared_queries = kQueries;
  jagged_attention_forward(forward, stream_);
  const Counted counted = count([&] { jagged_attention_backward(call, stream_); });
  const double keys = 4.0 * kBatch * kKeys * kHeads * kDim * 2;  // k, v and their gradients
  const double queries = kBatch * kQueries * kHeads * kDim * (3 * 2 + 2 * 4);
  std::cout << "shared queries: " << counted.bytes / (keys + queries) << " x the bytes\n";
  EXPECT_GE(counted.bytes, keys + queries);
  EXPECT_LE(counted.bytes, 1.1 * (keys + queries));
  EXPECT_EQ(counted.products, kBatch * kHeads * 5 * 16 * kKeys * kDim / (16 * 8 * 16));
  EXPECT_EQ(counted.bank_conflicts, 0);
  EXPECT_EQ(jagged_attention_backward_workspace(call, stream_),
            kBatch * kQueries * kHeads * kDim * 4);
}

// Hopper's kernel: blocks of 128 queries read the tiles of 64 keys that the mask leaves them, each
// group of 64 queries multiplies those that it sees.
TEST_F(AttentionBytes, LongSequencesOnHopper) {
  int major = 0;
  EXPECT_EQ(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0), cudaSuccess);
  if (major != 9) GTEST_SKIP() << "wgmma is sm_90's";
  for (const auto& [head_dim, is_fp8] :
       {std::pair{64, false}, {128, false}, {256, false}, {64, true}, {128, true}, {256, true}}) {
    const std::int64_t groups = head_dim == 256 ? 5 : 9, length = 64 * groups;
    std::unique_ptr<Batch> batch;
    std::unique_ptr<Fp8Batch> fp8_batch;
    Counted counted;
    if (is_fp8) {
      fp8_batch = fp8_batch_of(length, 1, head_dim);
      counted = count([&] { jagged_attention_fp8_forward(fp8_batch->forward, stream_); });
    } else {
      batch = batch_of(length, 1, head_dim);
      counted = count([&] { jagged_attention_forward(batch->forward, stream_); });
    }
    const std::int64_t size = is_fp8 ? 1 : 2, depth = 32 / size;  // bytes, of a product
    const std::int64_t terms = is_fp8 ? fp8_terms_of_queries(head_dim) : 1;
    const std::int64_t parts = is_fp8 && head_dim == 256 ? 4 : 1;  // of the values' columns
    std::int64_t bytes_of_head = length * (head_dim * (size * terms + 2) + 4), products = 0;
    for (std::int64_t g = 0; g < groups; ++g) {
      const std::int64_t tiles = g + 1;
      products += tiles * (terms * head_dim / depth + parts * 64 / depth) * 4;  // of each warp
      if (g % 2 == 1 || g + 1 == groups) bytes_of_head += 2 * 64 * tiles * head_dim * size;
    }
    const double bytes = counted.bytes / static_cast<double>(kHeads * bytes_of_head);
    std::cout << "forward" << (is_fp8 ? " of e4m3" : "") << ", length " << length << ", head_dim "
              << head_dim << ": " << bytes << " x the bytes of its tiles\n";
    EXPECT_GE(bytes, 1);
    EXPECT_LE(bytes, is_fp8 ? 1.05 : 1.03);  // scales
    EXPECT_EQ(counted.products, kHeads * products);
    EXPECT_EQ(counted.bank_conflicts, 0);
  }
}

// Its backward: a kernel whose blocks own 128 queries with d_out, and one whose blocks own 128 keys
// with values, for d_q and for d_k and d_v; at head_dim 256 d_v has one of its own, whose blocks
// own keys alone. The first one reads out and, for its sum with that, d_out once more.
TEST_F(AttentionBytes, LongSequencesOnHopperBackward) {
  int major = 0;
  EXPECT_EQ(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0), cudaSuccess);
  if (major != 9) GTEST_SKIP() << "wgmma is sm_90's";
  for (const std::int64_t head_dim : {64, 128, 256}) {
    const std::int64_t groups = head_dim == 256 ? 5 : 9, length = 64 * groups;
    const std::unique_ptr<Batch> batch = batch_of(length, 1, head_dim);
    jagged_attention_forward(batch->forward, stream_);
    const Counted counted = count([&] { jagged_attention_backward(batch->backward, stream_); });
    // Products of a warp: of a tensor's tile with rows of another, of all 64 at once or of 32; and
    // of weights with a tile, 128 columns at once.
    const std::int64_t whole = head_dim / 16, halves = 2 * whole, sum = head_dim == 256 ? 8 : 4;
    const bool is_wide = head_dim == 256;
    const std::int64_t of_queries = whole + (is_wide ? halves : whole) + sum;
    const std::int64_t of_keys =
        whole + (head_dim == 64 ? whole : halves) + 2 * sum + (is_wide ? whole : 0);
    const std::int64_t key_kernels = is_wide ? 2 : 1;
    std::int64_t rows = (5 + 3 + key_kernels) * length, floats = 2 * length, products = 0;
    for (std::int64_t g = 0; g < groups; ++g) {
      const std::int64_t keys = g + 1, queries = groups - g;  // tiles that group g sees
      products += 4 * (keys * of_queries + queries * of_keys);
      if (g % 2 == 1 || g + 1 == groups) rows += 2 * 64 * keys;
      if (g % 2 == 0) {
        // Log-sum-exps in each kernel; deltas, but for d_v.
        rows += key_kernels * 2 * 64 * queries, floats += (key_kernels + 1) * 64 * queries;
      }
    }
    const double bytes =
        counted.bytes / static_cast<double>(kHeads * (rows * head_dim * 2 + floats * 4));
    std::cout << "backward, length " << length << ", head_dim " << head_dim << ": " << bytes
              << " x the bytes of its tiles\n";
    EXPECT_GE(bytes, 1);
    EXPECT_LE(bytes, 1.05);
    EXPECT_EQ(counted.products, kHeads * products);
    EXPECT_EQ(counted.bank_conflicts, 0);
  }
}

// One query and a history of 4,096 keys: a block for each 256 of them in a head of keys, 384 where
// eight heads share it.
TEST_F(AttentionBytes, HistoriesOfDecodingAreReadOnce) {
  constexpr std::int64_t kKeys = 4096, kDim = 64;
  const std::vector<std::int64_t> host_offsets = {0, 1, 0, kKeys};
  const Buffer<std::int64_t> offsets(host_offsets, stream_);
  for (const std::int64_t num_heads : {std::int64_t{8}, kHeads}) {
    const std::int64_t key_heads = num_heads == kHeads ? kHeads : 1;
    const auto tokens = [&](std::int64_t count, std::int64_t heads) {
      return Buffer<BFloat16>::zeros(count * heads * kDim, stream_);
    };
    auto q = tokens(1, num_heads), out = tokens(1, num_heads);
    auto k = tokens(kKeys, key_heads), v = tokens(kKeys, key_heads);
    Buffer<float> lse(num_heads, stream_);
    const auto heads = [](Buffer<BFloat16>& x, std::int64_t count) {
      return DeviceHeads<BFloat16>{x.device_data(), count * kDim, kDim};
    };
    AttentionForward args;
    args.q = heads(q, num_heads), args.out = heads(out, num_heads), args.lse = lse.span();
    args.k = heads(k, key_heads), args.v = heads(v, key_heads);
    args.query_offsets = offsets.span().first(2), args.key_offsets = offsets.span().last(2);
    args.num_heads = num_heads, args.num_key_heads = key_heads, args.head_dim = kDim;
    args.mask = FullMask{};
    const Counted counted = count([&] { jagged_attention_forward(args, stream_); });
    const double bytes = counted.bytes / static_cast<double>(q.bytes() + k.bytes() + v.bytes() +
                                                             out.bytes() + lse.bytes());
    std::cout << "decoding, " << num_heads << " heads of " << key_heads << ": " << bytes
              << " x the bytes\n";
    EXPECT_GE(bytes, 1) << "the floor is wrong";
    EXPECT_LE(bytes, 1.1);
    EXPECT_EQ(counted.bank_conflicts, 0);
    const AttentionPlan plan = plan_attention(args, stream_);
    const auto lists = plan.on_cuda()->values.to_host(stream_);
    const std::int64_t* tasks = plan.on_cuda()->list(1).decoding;
    EXPECT_EQ(lists[tasks + 1 - plan.on_cuda()->values.device_data()],
              num_heads == kHeads ? 16 * key_heads : 11);
  }
}

// 128 candidates of a history: two blocks of 64 read its keys and values, and each of two chunks
// leaves what is written and read in float32.
TEST_F(AttentionBytes, HistoriesOfCandidatesAreReadOnceABlock) {
  constexpr std::int64_t kQueries = 128, kKeys = 1088, kDim = 64;
  constexpr std::int64_t kBlocks = 2, kChunks = 2;
  const Buffer<std::int64_t> offsets(std::vector<std::int64_t>{0, kQueries, 0, kKeys}, stream_);
  const Tokens q(kQueries, kDim, stream_), out(kQueries, kDim, stream_);
  const Tokens k(kKeys, kDim, stream_), v(kKeys, kDim, stream_);
  AttentionForward args;
  args.q = q.heads, args.k = k.heads, args.v = v.heads, args.out = out.heads;
  args.query_offsets = offsets.span().first(2), args.key_offsets = offsets.span().last(2);
  args.num_heads = kHeads, args.head_dim = kDim, args.mask = FullMask{};
  const Counted counted = count([&] { jagged_attention_forward(args, stream_); });
  constexpr double kFloor =
      kHeads * kDim * 2 * (kBlocks * 2 * kKeys + kChunks * kQueries + kQueries);
  constexpr double kPartials = kHeads * kChunks * kQueries * (kDim + 2) * 4 * 2;
  std::cout << "candidates: " << counted.bytes / (kFloor + kPartials) << " x the bytes\n";
  EXPECT_GE(counted.bytes, kFloor + kPartials) << "the floor is wrong";
  EXPECT_LE(counted.bytes, 1.1 * (kFloor + kPartials));
  EXPECT_EQ(counted.products, kHeads * 2 * kQueries * kKeys * kDim / (16 * 8 * 16));
  EXPECT_EQ(counted.bank_conflicts, 0);
}

TEST_F(AttentionBytes, Fp8SequencesAreReadOnce) {
  if (!has_shared_memory_of_sm_90()) GTEST_SKIP() << "what fits depends on shared memory";
  expect_fp8_near_floor(16, 64, 64);
  expect_fp8_near_floor(64, 16, 64);
  expect_fp8_near_floor(256, 4, 64);
  expect_fp8_near_floor(64, 16, 128);
  expect_fp8_near_floor(64, 8, 256);
}

}  // namespace
}  // namespace serrate
