#pragma once

#include <cstdint>

#include "kernels/host_batch.h"
#include "serrate/kernels/jagged_bmm.h"

namespace serrate {

// The blocks of a sample's product.
inline constexpr std::int64_t kBmmRows = 192;  // of z: a task
inline constexpr std::int64_t kBmmPanel = 64;  // columns of z
inline constexpr std::int64_t kBmmDepth = 128;

/// JaggedBmm as the CPU reads it.
struct HostBmm {
  HostBatch<const float> x, y;
  HostBatch<float> z;
  Transposed transposed;
};

// What a thread works in.
struct alignas(64) BmmScratch {
  float y[kBmmDepth * kBmmPanel];
  float z[kBmmRows * kBmmPanel];
};

/// How many terms an element of the product has.
inline std::int64_t depth_of(Transposed transposed, const MatrixView<const float>& x) {
  return transposed == Transposed::kLeft ? x.rows : x.cols;
}

}  // namespace serrate
