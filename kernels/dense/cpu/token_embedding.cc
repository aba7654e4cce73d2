#include <algorithm>

#include <vector>

#include "serrate/error.h"
#include "serrate/kernels/token_embedding.h"

namespace serrate {
namespace {

constexpr std::int64_t kColumnBlock = 16;  // a cache line

template <typename T>
std::vector<MatrixView<T>> host_views(std::span<const DeviceMatrix<T>> matrices,
                                      const Stream& stream) {
  std::vector<MatrixView<T>> views;
  for (const DeviceMatrix<T>& matrix : matrices) views.push_back(host_view(matrix, stream));
  return views;
}

void check_positions(std::span<const std::int64_t> positions, std::int64_t max_length) {
  const bool all_inside = std::all_of(positions.begin(), positions.end(),
                                      [&](std::int64_t p) { return p >= 0 && p < max_length; });
  check(all_inside, "token_embedding: positions must be in [0, rows of position)");
}

}  // namespace

template <>
void token_embedding_forward_on<DeviceType::kCpu>(const TokenEmbeddingForward& args,
                                                  const Stream& stream) {
  const auto positions = host_view(args.positions, stream);
  const auto position = host_view(args.position, stream);
  const auto features = host_views(args.features, stream);
  const auto tokens = host_view(args.x, stream);
  check_positions(positions, position.rows);
#pragma omp parallel for num_threads(stream.num_threads()) schedule(static)
  for (std::int64_t t = 0; t < tokens.rows; ++t) {
    float* x = tokens.row(t);
    std::copy_n(position.row(positions[t]), tokens.cols, x);
    for (const auto& feature : features) {
      const float* row = feature.row(t);
#pragma omp simd
      for (std::int64_t c = 0; c < tokens.cols; ++c) x[c] += args.scale * row[c];
    }
  }
}

// Threads take columns of d_position, so each sum is in token order on any number of threads.
template <>
void token_embedding_backward_on<DeviceType::kCpu>(const TokenEmbeddingBackward& args,
                                                   const Stream& stream) {
  const auto positions = host_view(args.positions, stream);
  const auto d_positions = host_view(args.d_position, stream);
  const auto d_features = host_views(args.d_features, stream);
  const auto d_tokens = host_view(args.d_x, stream);
  check_positions(positions, d_positions.rows);
  const std::int64_t n = d_tokens.rows, dim = d_tokens.cols;
#pragma omp parallel num_threads(stream.num_threads())
  {
#pragma omp for schedule(static) nowait
    for (std::int64_t t = 0; t < n; ++t) {
      const float* d_x = d_tokens.row(t);
      for (const auto& d_feature : d_features) {
        float* row = d_feature.row(t);
#pragma omp simd
        for (std::int64_t c = 0; c < dim; ++c) row[c] = args.scale * d_x[c];
      }
    }
#pragma omp for schedule(static)
    for (std::int64_t begin = 0; begin < dim; begin += kColumnBlock) {
      const std::int64_t end = std::min(dim, begin + kColumnBlock);
      for (std::int64_t t = 0; t < n; ++t) {
        const float* d_x = d_tokens.row(t);
        float* d_position = d_positions.row(positions[t]);
#pragma omp simd
        for (std::int64_t c = begin; c < end; ++c) d_position[c] += d_x[c];
      }
    }
  }
}

}  // namespace serrate
