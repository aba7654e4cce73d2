#include "serrate/kernels/jagged_bmm.h"

#include <functional>

#include "serrate/error.h"
#include "serrate/kernels/jagged_padded.h"
#include "tests/kernels/host_batch.h"

namespace serrate {
namespace {

using Lengths = HostBatch::Lengths;

// FBGEMM's four products.
enum class Product { kJaggedDense, kJaggedJagged, kJaggedOut, kArrayJagged };

struct Operands {
  HostBatch x, y, z;
  Transposed transposed;
};

// `inner` and `outer` are D and T; pairs are of m_lengths by n_lengths.
Operands operands_of(Product product, const Lengths& m_lengths, const Lengths& n_lengths,
                     std::int64_t inner, std::int64_t outer) {
  const auto batch_size = std::ssize(m_lengths);
  switch (product) {
    case Product::kJaggedDense:
      return {HostBatch::jagged(m_lengths, inner), HostBatch::dense(batch_size, inner, outer),
              HostBatch::jagged(m_lengths, outer), Transposed::kNone};
    case Product::kJaggedJagged:
      return {HostBatch::jagged(m_lengths, inner), HostBatch::jagged(m_lengths, outer),
              HostBatch::dense(batch_size, inner, outer), Transposed::kLeft};
    case Product::kJaggedOut:
      return {HostBatch::jagged(m_lengths, inner), HostBatch::jagged(n_lengths, inner),
              HostBatch::pairs(m_lengths, n_lengths), Transposed::kRight};
    default:
      return {HostBatch::pairs(m_lengths, n_lengths), HostBatch::jagged(n_lengths, inner),
              HostBatch::jagged(m_lengths, inner), Transposed::kNone};
  }
}

class JaggedBmmProducts : public testing::TestWithParam<Product> {};
INSTANTIATE_TEST_SUITE_P(All, JaggedBmmProducts,
                         testing::Values(Product::kJaggedDense, Product::kJaggedJagged,
                                         Product::kJaggedOut, Product::kArrayJagged));

const Lengths kLengths = {0, 1, 7, 63, 64, 65, 127, 128, 129, 0, 200, 0};

void run(Operands& o, int num_threads = 1) {
  jagged_bmm_forward({o.x.view(), o.y.view(), o.z.view(), o.transposed},
                     Stream(Device::cpu(), num_threads));
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
  for (const auto& [inner, outer] :
       {std::pair{1, 1}, {3, 17}, {16, 64}, {64, 5}, {65, 130}, {64, 64}}) {
    Operands o = operands_of(GetParam(), kLengths, kLengths, inner, outer);
    o.x.randomise(1);
    o.y.randomise(2);
    run(o, 2);
    expect_close(o.z, expected_of(o), 2e-5);
  }
}

// Rows and columns of different lengths, and rows in several tasks.
TEST_P(JaggedBmmProducts, AgreesWithTheReferenceWhereLengthsDiffer) {
  Operands o = operands_of(GetParam(), {0, 3, 400, 5, 64}, {4, 0, 30, 150, 1}, 20, 300);
  o.x.randomise(1);
  o.y.randomise(2);
  run(o);
  expect_close(o.z, expected_of(o), 2e-5);
}

TEST_P(JaggedBmmProducts, BackwardIsTheDerivativeOfTheReference) {
  Operands o = operands_of(GetParam(), {0, 3, 1, 5}, {2, 4, 0, 3}, 3, 4);
  o.x.randomise(1);
  o.y.randomise(2);
  HostBatch d_z = o.z, d_x = o.x, d_y = o.y;
  d_z.randomise(3);
  jagged_bmm_backward({o.x.view(), o.y.view(), d_z.view(), d_x.view(), d_y.view(), o.transposed},
                      Stream());
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
  const Lengths lengths = {65, 0, 1, 7, 250, 64};
  Operands o = operands_of(GetParam(), lengths, lengths, 33, 70);
  expect_bits_depend_on_the_sample_alone(
      o.x.randomise(1), o.y.randomise(2), o.z,
      [&](HostBatch& x, HostBatch& y, HostBatch& z, int threads) {
        jagged_bmm_forward({x.view(), y.view(), z.view(), o.transposed},
                           Stream(Device::cpu(), threads));
      });
}

TEST_P(JaggedBmmProducts, EmptyBatchesAndEmptySamples) {
  for (const std::size_t batch_size : {0, 3}) {
    const Lengths none(batch_size, 0);
    Operands o = operands_of(GetParam(), none, none, 4, 6);
    o.z.fill(7);
    run(o, 2);
    expect_close(o.z, expected_of(o), 0);  // of no rows, a dense z is 0
  }
}

TEST(JaggedBmm, ASampleByHand) {
  HostBatch x = HostBatch::jagged({1, 2}, 2), y = HostBatch::dense(2, 2, 1);
  HostBatch z = HostBatch::jagged({1, 2}, 1);
  float next = 1;
  x.for_each([&](float& value) { value = next++; });  // [1 2], [3 4; 5 6]
  y.for_each([&](float& value) { value = next++; });  // [7 8], [9 10]
  jagged_bmm_forward({x.view(), y.view(), z.view()}, Stream());
  const std::vector<double> expected = {1 * 7 + 2 * 8, 3 * 9 + 4 * 10, 5 * 9 + 6 * 10};
  EXPECT_EQ(z.in_double()[0].values, std::vector(expected.begin(), expected.begin() + 1));
  EXPECT_EQ(z.in_double()[1].values, std::vector(expected.begin() + 1, expected.end()));
}

// FBGEMM's batched_dense_vec_jagged_2d_mul: for every head h, out[b, h, d] = the sum over the first
// min(N_b, N) rows r of v[b, h, r] a[b][r, h, d]. A head is v's columns as a jagged batch of one
// column, by a's columns of that head.
TEST(JaggedBmm, DenseVectorsTimesJaggedMatricesOfSeveralHeads) {
  const std::int64_t heads = 3, n = 6, dim = 5, batch_size = 4, total = 14;
  const std::vector<std::int64_t> offsets = {0, 4, 4, 13, 14};
  const auto numbers = [](std::int64_t size, std::uint32_t seed) {
    std::vector<float> values;
    for (std::int64_t i = 0; i < size; ++i) {
      values.push_back(static_cast<float>(random_uniform(seed, RandomUse::kInit, 0, i)));
    }
    return values;
  };
  std::vector<float> v = numbers(batch_size * heads * n, 1), a = numbers(total * heads * dim, 2);
  std::vector<float> out(batch_size * heads * dim), column(total);
  for (std::int64_t h = 0; h < heads; ++h) {
    auto of_head = MatrixBatch<float>::dense({v.data() + h * n, batch_size * n, 1}, batch_size);
    of_head.sample_stride = heads * n;
    const auto weights = MatrixBatch<float>::jagged({column.data(), total, 1}, offsets);
    padded_to_jagged(of_head, weights, Stream());
    const auto of_a =
        MatrixBatch<float>::jagged({a.data() + h * dim, total, dim, heads * dim}, offsets);
    const auto z =
        MatrixBatch<float>::dense({out.data() + h * dim, batch_size, dim, heads * dim}, batch_size);
    jagged_bmm_forward({weights, of_a, z, Transposed::kLeft}, Stream());
  }
  for (std::int64_t i = 0; i < std::ssize(out); ++i) {
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
TEST(JaggedBmm, SequencesCutToALongestLength) {
  const std::int64_t longest = 3;
  HostBatch x = HostBatch::jagged({5, 0, 3, 1}, 4), cut = HostBatch::jagged({3, 0, 3, 1}, 4);
  HostBatch y = HostBatch::dense(4, 4, 2), z = HostBatch::jagged({3, 0, 3, 1}, 2);
  jagged_to_padded(x.randomise(1).view(), 0, cut.view(), Stream());
  jagged_bmm_forward({cut.view(), y.randomise(2).view(), z.view()}, Stream());
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
  HostBatch d_cut = cut, d_x = x;
  jagged_bmm_backward({cut.view(), y.view(), z.view(), d_cut.view(), {}}, Stream());
  padded_to_jagged(d_cut.view(), d_x.fill(7).view(), Stream());
  expect_close(d_x, by_x, 1e-5);
}

TEST(JaggedBmm, BadArgumentsAreErrors) {
  const Stream stream;
  HostBatch x = HostBatch::jagged({3, 2}, 4), z = HostBatch::jagged({3, 2}, 6);
  HostBatch y = HostBatch::dense(2, 4, 6), wrong_depth = HostBatch::dense(2, 5, 6);
  HostBatch wrong_batch = HostBatch::dense(3, 4, 6), wrong_rows = HostBatch::jagged({2, 3}, 6);
  HostBatch one_for_all = HostBatch::shared(2, 4, 6);
  EXPECT_NO_THROW(jagged_bmm_forward({x.view(), y.view(), z.view()}, stream));
  EXPECT_NO_THROW(jagged_bmm_forward({x.view(), one_for_all.view(), z.view()}, stream));
  for (HostBatch* bad : {&wrong_depth, &wrong_batch}) {
    EXPECT_THROW(jagged_bmm_forward({x.view(), bad->view(), z.view()}, stream), Error);
  }
  EXPECT_THROW(jagged_bmm_forward({x.view(), y.view(), wrong_rows.view()}, stream), Error);
  EXPECT_THROW(
      jagged_bmm_forward({x.view(), z.view(), one_for_all.view(), Transposed::kLeft}, stream),
      Error);
  std::vector<std::int64_t> offsets = {2, 5, 4};
  MatrixBatch<float> falling = x.view();
  falling.row_offsets = offsets;
  EXPECT_THROW(jagged_bmm_forward({falling, y.view(), falling}, stream), Error);
  offsets = {2, 5, 900};
  EXPECT_THROW(jagged_bmm_forward({falling, y.view(), z.view()}, stream), Error);
  HostBatch squares = HostBatch::pairs({3, 2}, {3, 2});
  MatrixBatch<float> overlapping = squares.view();
  offsets = {2, 10, 15};
  overlapping.value_offsets = offsets;
  EXPECT_THROW(jagged_bmm_forward({overlapping, x.view(), x.view()}, stream), Error);
}

}  // namespace
}  // namespace serrate
