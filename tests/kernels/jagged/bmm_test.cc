#include "serrate/kernels/jagged_bmm.h"

#include <functional>

#include "serrate/error.h"
#include "serrate/kernels/jagged_padded.h"
#include "tests/kernels/test_batch.h"
#include "tests/support/test_sizes.h"
#include "tests/support/test_streams.h"

namespace serrate {
namespace {

using Lengths = TestBatch::Lengths;

// FBGEMM's four products.
enum class Product { kJaggedDense, kJaggedJagged, kJaggedOut, kArrayJagged };

struct Operands {
  TestBatch x, y, z;
  Transposed transposed;
};

// `inner` and `outer` are D and T; pairs are of m_lengths by n_lengths.
Operands operands_of(Product product, const Lengths& m_lengths, const Lengths& n_lengths,
                     std::int64_t inner, std::int64_t outer) {
  const auto batch_size = std::ssize(m_lengths);
  switch (product) {
    case Product::kJaggedDense:
      return {TestBatch::jagged(m_lengths, inner), TestBatch::dense(batch_size, inner, outer),
              TestBatch::jagged(m_lengths, outer), Transposed::kNone};
    case Product::kJaggedJagged:
      return {TestBatch::jagged(m_lengths, inner), TestBatch::jagged(m_lengths, outer),
              TestBatch::dense(batch_size, inner, outer), Transposed::kLeft};
    case Product::kJaggedOut:
      return {TestBatch::jagged(m_lengths, inner), TestBatch::jagged(n_lengths, inner),
              TestBatch::pairs(m_lengths, n_lengths), Transposed::kRight};
    default:
      return {TestBatch::pairs(m_lengths, n_lengths), TestBatch::jagged(n_lengths, inner),
              TestBatch::jagged(m_lengths, inner), Transposed::kNone};
  }
}

class JaggedBmmProducts : public KernelTestOver<Product> {};
INSTANTIATE_TEST_SUITE_P(
    All, JaggedBmmProducts,
    testing::Combine(testing::ValuesIn(test_devices()),
                     testing::Values(Product::kJaggedDense, Product::kJaggedJagged,
                                     Product::kJaggedOut, Product::kArrayJagged)));

void run(TestStreams& on, Operands& o, int num_threads = 1) {
  const Stream& stream = on.threads(num_threads);
  jagged_bmm_forward({o.x.on(stream), o.y.on(stream), o.z.on(stream), o.transposed}, stream);
}

reference::Samples expected_of(Operands& o) {
  const reference::Samples x = o.x.in_double(), y = o.y.in_double();
  reference::Samples z;
  for (std::size_t b = 0; b < x.size(); ++b) {
    z.push_back(reference::product(x[b], y[b], o.transposed));
  }
  return z;
}

TEST_P(JaggedBmmProducts, AgreesWithTheReferenceAtAllLengths) {
  const Lengths lengths = lengths_around_tiles(stream.device());
  for (const auto& [inner, outer] :
       {std::pair{1, 1}, {3, 17}, {16, 8}, {64, 5}, {65, 130}, {64, 64}}) {
    Operands o = operands_of(param(), lengths, lengths, inner, outer);
    o.x.randomise(1);
    o.y.randomise(2);
    run(*this, o, 2);
    expect_close(o.z, expected_of(o), 2e-5);
  }
}

// Rows and columns of different lengths, and rows in several tasks.
TEST_P(JaggedBmmProducts, AgreesWithTheReferenceWhereLengthsDiffer) {
  Operands o = operands_of(param(), {0, 3, 400, 5, 64}, {4, 0, 30, 150, 1}, 20, 300);
  o.x.randomise(1);
  o.y.randomise(2);
  run(*this, o);
  expect_close(o.z, expected_of(o), 2e-5);
}

TEST_P(JaggedBmmProducts, BackwardIsTheDerivativeOfTheReference) {
  Operands o = operands_of(param(), {0, 3, 1, 5}, {2, 4, 0, 3}, 3, 4);
  o.x.randomise(1);
  o.y.randomise(2);
  TestBatch d_z = o.z, d_x = o.x, d_y = o.y;
  d_z.randomise(3);
  jagged_bmm_backward({o.x.on(stream), o.y.on(stream), d_z.on(stream), d_x.on(stream),
                       d_y.on(stream), o.transposed},
                      stream);
  reference::Samples x = o.x.in_double(), y = o.y.in_double(), by_x, by_y;
  const reference::Samples weights = d_z.in_double();
  for (std::size_t b = 0; b < x.size(); ++b) {
    const auto loss = [&] { return dot(weights[b], reference::product(x[b], y[b], o.transposed)); };
    by_x.push_back(numeric_gradient(x[b], loss));
    by_y.push_back(numeric_gradient(y[b], loss));
  }
  expect_close(d_x, by_x, 1e-5);
  expect_close(d_y, by_y, 1e-5);
}

TEST_P(JaggedBmmProducts, BitsDependOnTheSampleAlone) {
  const std::int64_t longest = tests_run_on_devices() ? 130 : 250;  // two tasks of the CPU
  const Lengths lengths = {65, 0, 1, 7, longest, 64};
  Operands o = operands_of(param(), lengths, lengths, 33, 70);
  expect_bits_depend_on_the_sample_alone(
      o.x.randomise(1), o.y.randomise(2), o.z,
      [&](TestBatch& x, TestBatch& y, TestBatch& z, int num_threads) {
        jagged_bmm_forward({x.on(stream), y.on(stream), z.on(stream), o.transposed},
                           threads(num_threads));
      });
}

TEST_P(JaggedBmmProducts, EmptyBatchesAndEmptySamples) {
  for (const std::size_t batch_size : {0, 3}) {
    const Lengths none(batch_size, 0);
    Operands o = operands_of(param(), none, none, 4, 6);
    o.z.fill(7);
    run(*this, o, 2);
    expect_close(o.z, expected_of(o), 0);  // of no rows, a dense z is 0
  }
}

class JaggedBmmTest : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Device, JaggedBmmTest, testing::ValuesIn(test_devices()), device_name);

TEST_P(JaggedBmmTest, ASampleByHand) {
  TestBatch x = TestBatch::jagged({1, 2}, 2), y = TestBatch::dense(2, 2, 1);
  TestBatch z = TestBatch::jagged({1, 2}, 1);
  float next = 1;
  x.for_each([&](float& value) { value = next++; });  // [1 2], [3 4; 5 6]
  y.for_each([&](float& value) { value = next++; });  // [7 8], [9 10]
  jagged_bmm_forward({x.on(stream), y.on(stream), z.on(stream)}, stream);
  const std::vector<double> expected = {1 * 7 + 2 * 8, 3 * 9 + 4 * 10, 5 * 9 + 6 * 10};
  EXPECT_EQ(z.in_double()[0].values, std::vector(expected.begin(), expected.begin() + 1));
  EXPECT_EQ(z.in_double()[1].values, std::vector(expected.begin() + 1, expected.end()));
}

// FBGEMM's batched_dense_vec_jagged_2d_mul: for every head h, out[b, h, d] = the sum over the first
// min(N_b, N) rows r of v[b, h, r] a[b][r, h, d]. A head is v's columns as a jagged batch of one
// column, by a's columns of that head.
TEST_P(JaggedBmmTest, DenseVectorsTimesJaggedMatricesOfSeveralHeads) {
  const std::int64_t heads = 3, n = 6, dim = 5, batch_size = 4, total = 14;
  const TestArray<std::int64_t> offsets = {0, 4, 4, 13, 14};
  const auto numbers = [](std::int64_t size, std::uint32_t seed) {
    std::vector<float> values;
    for (std::int64_t i = 0; i < size; ++i) {
      values.push_back(static_cast<float>(random_uniform(seed, RandomUse::kInit, 0, i)));
    }
    return values;
  };
  const TestArray<float> v = numbers(batch_size * heads * n, 1);
  const TestArray<float> a = numbers(total * heads * dim, 2);
  const TestArray<float> out(batch_size * heads * dim), column(total);
  // From value `first` on.
  const auto matrix = [&](const TestArray<float>& values, std::int64_t first, std::int64_t rows,
                          std::int64_t cols, std::int64_t stride) {
    return DeviceMatrix<float>(values.on(stream).subspan(first).device_data(), rows, cols, stride);
  };
  for (std::int64_t h = 0; h < heads; ++h) {
    auto of_head = MatrixBatch<float>::dense(matrix(v, h * n, batch_size * n, 1, 1), batch_size);
    of_head.sample_stride = heads * n;
    const auto weights =
        MatrixBatch<float>::jagged(matrix(column, 0, total, 1, 1), offsets.on(stream));
    padded_to_jagged(of_head, weights, stream);
    const auto of_a =
        MatrixBatch<float>::jagged(matrix(a, h * dim, total, dim, heads * dim), offsets.on(stream));
    const auto z =
        MatrixBatch<float>::dense(matrix(out, h * dim, batch_size, dim, heads * dim), batch_size);
    jagged_bmm_forward({weights, of_a, z, Transposed::kLeft}, stream);
  }
  for (std::int64_t i = 0; i < out.size(); ++i) {
    const std::int64_t b = i / (heads * dim), h = i / dim % heads, d = i % dim;
    double want = 0;
    for (std::int64_t r = 0; r < std::min(offsets[b + 1] - offsets[b], n); ++r) {
      want += double{v[(b * heads + h) * n + r]} * a[((offsets[b] + r) * heads + h) * dim + d];
    }
    EXPECT_NEAR(out[i], want, 1e-6);
  }
}

// FBGEMM's ops see no more than max_seq_len rows of a sequence; here, such a copy is made of it
// first, and the gradient by what it leaves out is 0.
TEST_P(JaggedBmmTest, SequencesCutToALongestLength) {
  const std::int64_t longest = 3;
  TestBatch x = TestBatch::jagged({5, 0, 3, 1}, 4), cut = TestBatch::jagged({3, 0, 3, 1}, 4);
  TestBatch y = TestBatch::dense(4, 4, 2), z = TestBatch::jagged({3, 0, 3, 1}, 2);
  jagged_to_padded(x.randomise(1).on(stream), 0, cut.on(stream), stream);
  jagged_bmm_forward({cut.on(stream), y.randomise(2).on(stream), z.on(stream)}, stream);
  reference::Samples xs = x.in_double(), expected, by_x;
  const reference::Samples ys = y.in_double(), weights = z.in_double();
  for (std::size_t b = 0; b < xs.size(); ++b) {
    const auto product = [&] {
      const std::int64_t rows = std::min(xs[b].rows, longest);
      return reference::product(reference::resized(xs[b], rows, 4, 0), ys[b], Transposed::kNone);
    };
    expected.push_back(product());
    by_x.push_back(numeric_gradient(xs[b], [&] { return dot(weights[b], product()); }));
  }
  expect_close(z, expected, 1e-6);
  TestBatch d_cut = cut, d_x = x;
  jagged_bmm_backward({cut.on(stream), y.on(stream), z.on(stream), d_cut.on(stream), {}}, stream);
  padded_to_jagged(d_cut.on(stream), d_x.fill(7).on(stream), stream);
  expect_close(d_x, by_x, 1e-5);
}

// A device's offsets are not read on the host: there wrong ones are the caller's to see to.
TEST(JaggedBmmOnTheCpu, BadArgumentsAreErrors) {
  const Stream stream;
  TestBatch x = TestBatch::jagged({3, 2}, 4), z = TestBatch::jagged({3, 2}, 6);
  TestBatch y = TestBatch::dense(2, 4, 6), wrong_depth = TestBatch::dense(2, 5, 6);
  TestBatch wrong_batch = TestBatch::dense(3, 4, 6), wrong_rows = TestBatch::jagged({2, 3}, 6);
  TestBatch one_for_all = TestBatch::shared(2, 4, 6);
  EXPECT_NO_THROW(jagged_bmm_forward({x.on(stream), y.on(stream), z.on(stream)}, stream));
  EXPECT_NO_THROW(jagged_bmm_forward({x.on(stream), one_for_all.on(stream), z.on(stream)}, stream));
  for (TestBatch* bad : {&wrong_depth, &wrong_batch}) {
    EXPECT_THROW(jagged_bmm_forward({x.on(stream), bad->on(stream), z.on(stream)}, stream), Error);
  }
  EXPECT_THROW(jagged_bmm_forward({x.on(stream), y.on(stream), wrong_rows.on(stream)}, stream),
               Error);
  EXPECT_THROW(jagged_bmm_forward(
                   {x.on(stream), z.on(stream), one_for_all.on(stream), Transposed::kLeft}, stream),
               Error);
  TestArray<std::int64_t> offsets = {2, 5, 4};
  MatrixBatch<float> falling = x.on(stream);
  falling.row_offsets = offsets.on(stream);
  EXPECT_THROW(jagged_bmm_forward({falling, y.on(stream), falling}, stream), Error);
  offsets = TestArray<std::int64_t>{2, 5, 900};
  falling.row_offsets = offsets.on(stream);
  EXPECT_THROW(jagged_bmm_forward({falling, y.on(stream), z.on(stream)}, stream), Error);
  TestBatch squares = TestBatch::pairs({3, 2}, {3, 2});
  MatrixBatch<float> overlapping = squares.on(stream);
  offsets = TestArray<std::int64_t>{2, 10, 15};
  overlapping.value_offsets = offsets.on(stream);
  EXPECT_THROW(jagged_bmm_forward({overlapping, x.on(stream), x.on(stream)}, stream), Error);
}

}  // namespace
}  // namespace serrate
