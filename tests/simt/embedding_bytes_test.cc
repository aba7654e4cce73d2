// What the embedding's kernels move, in sectors of 32 bytes as the simulated device counts them,
// against the least that each could: what it reads and writes, once, and of a value that lies apart
// from others a sector. docs/performance_gpu.md has the table. CUB's calls are not counted.
#include <gtest/gtest.h>

#include <cmath>
#include <iostream>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <utility>

#include "serrate/buffer.h"
#include "serrate/kernels/bag_offsets.h"
#include "serrate/kernels/bucketize.h"
#include "serrate/kernels/embedding_lookup.h"
#include "serrate/kernels/embedding_update.h"
#include "serrate/kernels/permute_bags.h"
#include "tests/support/simt/counters.h"

namespace serrate {
namespace {

/// A rank's ids of a step.
struct Shape {
  std::string name;
  std::int64_t dim, tables, bags, ids_per_bag;  // bags of each table
};

class EmbeddingBytes : public testing::TestWithParam<Shape> {
 protected:
  static constexpr std::int64_t kRows = 5000;
  static constexpr double kSector = 32;

  EmbeddingBytes() {
    std::mt19937 random(1);
    std::vector<std::int64_t> offsets(shape.bags + 1);
    for (std::int64_t bag = 0; bag <= shape.bags; ++bag) offsets[bag] = bag * shape.ids_per_bag;
    offsets_ = Buffer<std::int64_t>(offsets, stream_);
    std::vector<std::int64_t> ids(shape.bags * shape.ids_per_bag);
    for (std::int64_t t = 0; t < shape.tables; ++t) {
      for (std::int64_t& id : ids) id = static_cast<std::int64_t>(random() % kRows);
      num_rows_.push_back(static_cast<double>(std::set(ids.begin(), ids.end()).size()));
      ids_.emplace_back(ids, stream_);
      outputs_.push_back(Buffer<float>::zeros(shape.bags * shape.dim, stream_));
    }
  }

  DeviceMatrix<float> output(std::int64_t table) {
    return outputs_[table].matrix(shape.bags, shape.dim);
  }

  /// The kernel moves at most 1.15 times so many bytes.
  static void expect_near_floor(const std::string& kernel, double bytes,
                                std::int64_t most_bank_conflicts = 0) {
    double sectors = 0;
    std::uint64_t launches = 0;
    for (const simt::KernelCounters& c : simt::kernel_counters()) {
      if (!c.kernel.starts_with(kernel)) continue;
      sectors += static_cast<double>(c.global_read_sectors + c.global_written_sectors);
      launches += c.launches;
      EXPECT_LE(c.shared_bank_conflicts, most_bank_conflicts) << c.kernel;
      std::cout << c.shared_bank_conflicts << " bank conflicts, ";
    }
    std::cout << kernel << ": " << launches << " launches, " << sectors * 32 / bytes
              << " x the floor\n";
    EXPECT_EQ(launches, 1u) << kernel;
    EXPECT_GE(sectors * 32, bytes) << kernel << ": the floor is wrong";
    EXPECT_LE(sectors * 32, 1.15 * bytes) << kernel;
  }

  const Shape& shape = GetParam();
  const double num_ids_ = static_cast<double>(shape.bags * shape.ids_per_bag);  // of a table
  const double num_bags_ = static_cast<double>(shape.bags);
  const double row_ = 4.0 * static_cast<double>(shape.dim);
  const Stream stream_{Device::cuda(0)};
  Buffer<std::int64_t> offsets_;
  std::vector<Buffer<std::int64_t>> ids_;
  std::vector<Buffer<float>> outputs_;
  std::vector<double> num_rows_;  // that differ, of each table
  Buffer<float> table_ = Buffer<float>::zeros(kRows * shape.dim * 3, stream_);
};

// For each id itself and a row, for each bag where it ends and a row.
TEST_P(EmbeddingBytes, Lookup) {
  std::vector<LookupSegment> segments;
  for (std::int64_t t = 0; t < shape.tables; ++t) {
    segments.push_back({DeviceMatrix<const float>(table_.device_data(), kRows, shape.dim),
                        ids_[t].span(),
                        offsets_.span(),
                        {},
                        output(t)});
  }
  simt::reset_counters();
  embedding_lookup(segments, stream_);
  stream_.synchronize();
  const auto tables = static_cast<double>(shape.tables);
  expect_near_floor("pool_bags", tables * (num_ids_ * (8 + row_) + num_bags_ * (8 + row_)));
}

// For each bag where it ends and its scale; and each id itself, where some may have no row.
TEST_P(EmbeddingBytes, MeanScalesOfBags) {
  Buffer<float> scales = Buffer<float>::zeros(shape.bags, stream_);
  for (const bool counts_ids : {false, true}) {
    MeanScales segment{offsets_.span(), scales.span()};
    if (counts_ids) segment.ids = ids_[0].span(), segment.num_rows = kRows;
    simt::reset_counters();
    mean_scales({&segment, 1}, stream_);
    stream_.synchronize();
    expect_near_floor("write_scales", num_bags_ * 12 + (counts_ids ? num_ids_ * 8 : 0));
  }
}

// For each id its key and a gradient; for each row the weights and what the optimizer keeps, read
// and written.
TEST_P(EmbeddingBytes, Update) {
  const GradientSegment segment{ids_[0].span(), offsets_.span(), {}, output(0)};
  const auto weights = [&](std::int64_t array) {
    return table_.matrix(kRows, 3 * shape.dim).columns(array * shape.dim, (array + 1) * shape.dim);
  };
  RowGroups groups;
  simt::reset_counters();
  group_gradients({&segment, 1}, kRows, groups, stream_);
  stream_.synchronize();
  // An id and its key.
  expect_near_floor("number_occurrences", num_ids_ * 16 + num_bags_ * 8);
  Buffer<float> sums = Buffer<float>::zeros(kRows, stream_);
  for (const auto& [optimizer, state] : {std::pair{SparseOptimizer::kSgd, 0.0},
                                         {SparseOptimizer::kAdagrad, row_},
                                         {SparseOptimizer::kRowWiseAdagrad, kSector},
                                         {SparseOptimizer::kAdam, 2 * row_}}) {
    EmbeddingUpdate args{.table = weights(0),
                         .state = {},
                         .second_moment = {},
                         .segments = {&segment, 1},
                         .optimizer = {.type = optimizer},
                         .step = 1};
    if (state > kSector) args.state = weights(1);
    if (state > row_) args.second_moment = weights(2);
    if (optimizer == SparseOptimizer::kRowWiseAdagrad) args.state = sums.matrix(kRows, 1);
    simt::reset_counters();
    embedding_update(args, groups, {}, 0, stream_);
    stream_.synchronize();
    std::cout << to_string(optimizer) << ", ";
    expect_near_floor("update_rows", num_ids_ * (8 + row_) + num_rows_[0] * 2 * (row_ + state));
  }
}

TEST_P(EmbeddingBytes, RowsOfBags) {
  std::vector<std::int64_t> index(shape.bags);
  std::iota(index.begin(), index.end(), 0);
  const Buffer<std::int64_t> bags(index, stream_);
  Buffer<float> rows = Buffer<float>::zeros(shape.bags * shape.dim, stream_);
  const BagRows segment{bags.span(), rows.matrix(shape.bags, shape.dim), output(0), {}};
  simt::reset_counters();
  gather_bags({&segment, 1}, stream_);
  scatter_bags({&segment, 1}, stream_);
  stream_.synchronize();
  expect_near_floor("gather_tiles", num_bags_ * (8 + 2 * row_));
  expect_near_floor("scatter_tiles", num_bags_ * (8 + 3 * row_));
}

TEST_P(EmbeddingBytes, Bucketize) {
  const std::vector<std::int64_t> splits{0, kRows / 2, kRows};
  const BucketizeSegment segment{{ids_[0].span(), offsets_.span(), {}}, splits};
  BucketizedIds result;
  simt::reset_counters();
  bucketize({&segment, 1}, OutsideIds::kLeaveOut, result, stream_);
  stream_.synchronize();
  const BucketSizes sizes = sizes_on_host(result, stream_);
  const auto parts = static_cast<double>(sizes.bag_splits.back());
  // An id, and for each block of 512 what it has of each row block, a sector apart; that is summed.
  // Then the id again and the result; of each bag in a row block where it begins and its number.
  const double counts = 2 * std::ceil(num_ids_ / 512);
  // A warp writes its ids to two runs of shared memory, in five arrays.
  const auto conflicts = static_cast<std::int64_t>(num_ids_ / 32) * 6;
  expect_near_floor("count_ids", num_ids_ * 8 + num_bags_ * 8 + counts * (kSector + 32), conflicts);
  expect_near_floor("write_ids", num_ids_ * 16 + num_bags_ * 8 + parts * 16 + counts * kSector,
                    conflicts);
}

// An id's bag, and where bags end.
TEST_P(EmbeddingBytes, BagsOfIds) {
  Buffer<std::int64_t> bags(ids_[0].size(), stream_);
  const BagsOfIds segment{offsets_.span(), bags.span()};
  simt::reset_counters();
  bags_of_ids({&segment, 1}, stream_);
  stream_.synchronize();
  expect_near_floor("write_bags", num_ids_ * 8 + num_bags_ * 8);
}

// A SASRec-class model's, an id for each event; and pooled features.
INSTANTIATE_TEST_SUITE_P(Shapes, EmbeddingBytes,
                         testing::Values(Shape{"OneIdOf64Columns", 64, 1, 2048, 1},
                                         Shape{"TwentyIdsOf128Columns", 128, 2, 256, 20}),
                         [](const auto& p) { return p.param.name; });

}  // namespace
}  // namespace serrate
