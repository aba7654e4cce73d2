#include <algorithm>

#include "serrate/error.h"
#include "serrate/kernels/token_embedding.h"

namespace serrate {
namespace {

constexpr std::int64_t kColumnBlock = 16;  // a cache line

void check_positions(std::span<const std::int64_t> positions, std::int64_t max_length) {
  const bool all_inside = std::all_of(positions.begin(), positions.end(),
                                      [&](std::int64_t p) { return p >= 0 && p < max_length; });
  check(all_inside, "token_embedding: positions must be in [0, rows of position)");
}

}  // namespace

template <>
void token_embedding_forward_on<DeviceType::kCpu>(const TokenEmbeddingForward& args,
                                                  const Stream& stream) {
  check_positions(args.positions, args.position.rows);
#pragma omp parallel for num_threads(stream.num_threads()) schedule(static)
  for (std::int64_t t = 0; t < args.x.rows; ++t) {
    float* x = args.x.row(t);
    std::copy_n(args.position.row(args.positions[t]), args.x.cols, x);
    for (const auto& feature : args.features) {
      const float* row = feature.row(t);
#pragma omp simd
      for (std::int64_t c = 0; c < args.x.cols; ++c) x[c] += args.scale * row[c];
    }
  }
}

// Threads take columns of d_position, so each sum is in token order on any number of threads.
template <>
void token_embedding_backward_on<DeviceType::kCpu>(const TokenEmbeddingBackward& args,
                                                   const Stream& stream) {
  check_positions(args.positions, args.d_position.rows);
  const std::int64_t n = args.d_x.rows, dim = args.d_x.cols;
#pragma omp parallel num_threads(stream.num_threads())
  {
#pragma omp for schedule(static) nowait
    for (std::int64_t t = 0; t < n; ++t) {
      const float* d_x = args.d_x.row(t);
      for (const auto& d_feature : args.d_features) {
        float* row = d_feature.row(t);
#pragma omp simd
        for (std::int64_t c = 0; c < dim; ++c) row[c] = args.scale * d_x[c];
      }
    }
#pragma omp for schedule(static)
    for (std::int64_t begin = 0; begin < dim; begin += kColumnBlock) {
      const std::int64_t end = std::min(dim, begin + kColumnBlock);
      for (std::int64_t t = 0; t < n; ++t) {
        const float* d_x = args.d_x.row(t);
        float* d_position = args.d_position.row(args.positions[t]);
#pragma omp simd
        for (std::int64_t c = begin; c < end; ++c) d_position[c] += d_x[c];
      }
    }
  }
}

}  // namespace serrate
