#include "serrate/kernels/embedding_lookup.h"

#include "serrate/error.h"
#include "tests/kernels/embedding/fixture.h"
#include "tests/support/test_sizes.h"

namespace serrate {
namespace {

using reference::Bags;
using reference::Matrix;

class EmbeddingLookupTest : public EmbeddingTest {
 protected:
  // One segment on the device, its output filled with 5 beforehand.
  struct Case {
    Bags bags;
    TestMatrix table, output;
    DeviceBags device_bags;

    Case(const Matrix& values, Bags bags_, const Stream& stream)
        : bags(std::move(bags_)),
          table(values, stream),
          output(matrix(bags.num_bags(), values.cols,
                        std::vector<double>(bags.num_bags() * values.cols, 5)),
                 stream),
          device_bags(bags, stream) {}
    LookupSegment segment() {
      return {table.view(), device_bags.indices.span(), device_bags.offsets.span(),
              device_bags.weights.span(), output.view()};
    }
  };

  Matrix lookup(const Matrix& values, Bags bags) {
    Case one(values, std::move(bags), stream);
    const LookupSegment segment = one.segment();
    embedding_lookup({&segment, 1}, stream);
    return one.output.to_host(stream);
  }

  const Matrix table = matrix(3, 2, {1, 2, 10, 20, 100, 200});
};

TEST_P(EmbeddingLookupTest, SumsRowsOfEachBag) {
  EXPECT_EQ(lookup(table, {{0, 2, 1, 1}, {0, 2, 2, 4}, {}}).values,
            (std::vector<double>{101, 202, 0, 0, 20, 40}));
}

TEST_P(EmbeddingLookupTest, WeighsRows) {
  EXPECT_EQ(lookup(table, {{0, 2, 1}, {0, 2, 3}, {3, -1, 0.5}}).values,
            (std::vector<double>{-97, -194, 5, 10}));
}

TEST_P(EmbeddingLookupTest, OffsetsAreRelativeToTheFirst) {
  EXPECT_EQ(lookup(table, {{2, 1, 0}, {40, 41, 43}, {}}).values,
            (std::vector<double>{100, 200, 11, 22}));
}

TEST_P(EmbeddingLookupTest, MatchesReferenceForEveryWidth) {
  for (const std::int64_t dim : kDims) {
    for (const bool weighted : {false, true}) {
      SCOPED_TRACE(testing::Message() << "dim " << dim << ", weighted " << weighted);
      const Matrix values = random_matrix(50, dim, 1);
      const Bags bags = random_bags(40, 50, 9, weighted, 2);
      expect_near(lookup(values, bags), reference::embedding_lookup(values, bags), 1e-6);
    }
  }
}

TEST_P(EmbeddingLookupTest, SumsLongBagsOfWideRows) {
  const Matrix values = random_matrix(50, 300, 1);
  const Bags bags = random_bags(5, 50, 500, true, 3);
  expect_near(lookup(values, bags), reference::embedding_lookup(values, bags), 1e-5);
}

TEST_P(EmbeddingLookupTest, LooksUpSeveralTablesAtOnce) {
  std::vector<Case> cases;
  std::vector<LookupSegment> segments;
  std::vector<Matrix> expected;
  for (const std::int64_t dim : {16, 5, 128}) {
    const Matrix values = random_matrix(20, dim, 4);
    for (const std::int64_t num_bags : {0, 1, 30}) {
      const Bags bags = random_bags(num_bags, 20, 6, num_bags == 30, 5);
      expected.push_back(reference::embedding_lookup(values, bags));
      cases.emplace_back(values, bags, stream);
    }
  }
  for (Case& one : cases) segments.push_back(one.segment());
  embedding_lookup(segments, stream);
  for (std::size_t i = 0; i < cases.size(); ++i) {
    expect_near(cases[i].output.to_host(stream), expected[i], 1e-6);
  }
}

// Rows of fours of columns, which are not aligned in the table or not in the output.
TEST_P(EmbeddingLookupTest, AlignmentChangesNoBits) {
  const Matrix values = random_matrix(20, 8, 4);
  const Bags bags = random_bags(30, 20, 6, true, 5);
  const DeviceBags on_device(bags, stream);
  const auto pooled = [&](std::int64_t table_gap, std::int64_t output_gap) {
    TestMatrix rows(values, stream, table_gap), output(Matrix(30, 8), stream, output_gap);
    const LookupSegment segment{rows.view(), on_device.indices.span(), on_device.offsets.span(),
                                on_device.weights.span(), output.view()};
    embedding_lookup({&segment, 1}, stream);
    return output.to_host(stream).values;
  };
  const std::vector<double> aligned = pooled(4, 4);
  EXPECT_EQ(pooled(3, 4), aligned);
  EXPECT_EQ(pooled(4, 3), aligned);
}

TEST_P(EmbeddingLookupTest, BitsDoNotDependOnThreads) {
  const Matrix values = random_matrix(100, 64, 6);
  const Bags bags = random_bags(200, 100, 30, true, 7);
  const Matrix once = lookup(values, bags);
  for (int num_threads = 2; num_threads <= most_threads(); ++num_threads) {
    stream = Stream(GetParam(), num_threads);
    EXPECT_EQ(lookup(values, bags).values, once.values) << num_threads << " threads";
  }
}

TEST_P(EmbeddingLookupTest, RejectsShapesThatDoNotFit) {
  Case good(table, {{0, 2, 1}, {0, 2, 3}, {1, 1, 1}}, stream);
  LookupSegment short_offsets = good.segment(), narrow = good.segment(), weights = good.segment();
  short_offsets.offsets = short_offsets.offsets.first(2);
  narrow.output.cols = 1;
  weights.weights = weights.weights.first(2);
  for (const LookupSegment& bad : {short_offsets, narrow, weights}) {
    EXPECT_THROW(embedding_lookup({&bad, 1}, stream), Error);
  }
}

INSTANTIATE_TEST_SUITE_P(Device, EmbeddingLookupTest, testing::ValuesIn(test_devices()),
                         device_name);

}  // namespace
}  // namespace serrate
