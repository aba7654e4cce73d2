// Updates of tables that are cut by columns: squares of a row's gradient, summed over its shards.
#include <cstdint>
#include <string>
#include <vector>

#include "tests/kernels/embedding/update_fixture.h"

namespace serrate {
namespace {

using reference::Bags;
using reference::Matrix;
using reference::Parameters;

TEST_P(EmbeddingUpdateTest, ColumnShardsStepAsTheWholeRow) {
  const SparseOptimizerOptions optimizer{.type = SparseOptimizer::kRowWiseAdagrad};
  const std::vector<Gradient> gradients{
      {random_bags(30, 20, 5, false, 31), random_matrix(30, 8, 32)}};
  const Parameters begin = start(optimizer.type, random_matrix(20, 8, 33));
  DeviceParameters whole(begin, stream), left(begin, stream), right(begin, stream);
  update(gradients, optimizer, 1, whole);

  DeviceGradient gradient(gradients[0], stream);
  GradientSegment left_segment = gradient.segment(), right_segment = left_segment;
  left_segment.d_output = left_segment.d_output.columns(0, 5);
  right_segment.d_output = right_segment.d_output.columns(5, 8);
  const EmbeddingUpdate left_args{.table = left.table.view().columns(0, 5),
                                  .state = left.state.view(),
                                  .second_moment = {},
                                  .segments = {&left_segment, 1},
                                  .optimizer = optimizer};
  const EmbeddingUpdate right_args{.table = right.table.view().columns(5, 8),
                                   .state = right.state.view(),
                                   .second_moment = {},
                                   .segments = {&right_segment, 1},
                                   .optimizer = optimizer};
  group_gradients(left_args.segments, 20, groups, stream);
  auto left_squares = Buffer<float>::zeros(groups.num_occurrences, stream);
  auto right_squares = Buffer<float>::zeros(groups.num_occurrences, stream);
  const ColumnRange left_columns{0, 5}, right_columns{0, 3};
  gradient_row_squares(left_args, groups, {&left_columns, 1}, left_squares.span(), stream);
  gradient_row_squares(right_args, groups, {&right_columns, 1}, right_squares.span(), stream);
  std::vector<float> squares = left_squares.to_host(stream);
  const std::vector<float> others = right_squares.to_host(stream);
  const auto where = grouped(groups, left_args.segments, stream);
  std::int64_t num_repeated = 0;
  for (std::size_t o = 0; o < squares.size(); ++o) {
    const bool is_first = o == 0 || where[o].row != where[o - 1].row;
    num_repeated += is_first ? 0 : 1;
    EXPECT_EQ(squares[o] > 0, is_first) << o;
    EXPECT_EQ(others[o] > 0, is_first) << o;
    squares[o] += others[o];
  }
  EXPECT_GT(num_repeated, 0);
  const Buffer<float> sums(squares, stream);
  embedding_update(left_args, groups, sums.span(), 8, stream);
  embedding_update(right_args, groups, sums.span(), 8, stream);

  const Parameters expected = whole.to_host(stream);
  expect_near(left.to_host(stream).state, expected.state, 1e-6);
  Matrix joined = left.to_host(stream).table;
  const Matrix right_table = right.to_host(stream).table;
  for (std::int64_t r = 0; r < 20; ++r) {
    for (std::int64_t c = 5; c < 8; ++c) joined(r, c) = right_table(r, c);
  }
  expect_near(joined, expected.table, 1e-6);
}

// Of two shards' columns at once, with small integers, whose sums are exact in any order.
TEST_P(EmbeddingUpdateTest, SquaresRowsWithVeryManyOccurrences) {
  constexpr std::int64_t kDim = 8;
  constexpr ColumnRange kRanges[] = {{0, 4}, {4, 7}};
  for (const std::int64_t count : {511, 512, 513, 5000}) {
    SCOPED_TRACE(std::to_string(count) + " ids");
    Bags bags{{0, 2}, {0, 1, 2}, {}};  // row 1 has the others
    for (std::int64_t i = 0; i < count; ++i) {
      bags.indices.push_back(1);
      bags.offsets.push_back(std::ssize(bags.indices));
    }
    Matrix d_output(bags.num_bags(), kDim), d_table(3, kDim);
    for (std::int64_t b = 0; b < d_output.rows; ++b) {
      for (std::int64_t c = 0; c < kDim; ++c) d_output(b, c) = static_cast<double>((b + c) % 7 - 2);
    }
    reference::add_embedding_gradient(bags, d_output, d_table);
    DeviceParameters parameters(start(SparseOptimizer::kRowWiseAdagrad, Matrix(3, kDim)), stream);
    DeviceGradient gradient({bags, d_output}, stream);
    const GradientSegment segment = gradient.segment();
    const EmbeddingUpdate args{.table = parameters.table.view(),
                               .state = parameters.state.view(),
                               .second_moment = {},
                               .segments = {&segment, 1},
                               .optimizer = {.type = SparseOptimizer::kRowWiseAdagrad}};
    group_gradients(args.segments, 3, groups, stream);
    const std::int64_t size = groups.num_occurrences;
    auto squares = Buffer<float>::zeros(2 * size, stream);
    gradient_row_squares(args, groups, kRanges, squares.span(), stream);
    const std::vector<float> actual = squares.to_host(stream);
    for (std::int64_t range = 0; range < 2; ++range) {
      const std::int64_t first_of_row[] = {0, 1, size - 1};
      for (std::int64_t row = 0; row < 3; ++row) {
        double expected = 0;
        for (std::int64_t c = kRanges[range].begin; c < kRanges[range].end; ++c) {
          expected += d_table(row, c) * d_table(row, c);
        }
        EXPECT_NEAR(actual[range * size + first_of_row[row]], expected, kDim * 0x1p-23 * expected)
            << "row " << row << ", range " << range;
      }
    }
  }
}

}  // namespace
}  // namespace serrate
