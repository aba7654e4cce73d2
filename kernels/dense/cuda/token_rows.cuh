#pragma once

#include <span>

#include "kernels/cuda/fours.cuh"
#include "serrate/kernels/token_embedding.h"

namespace serrate {

constexpr std::size_t kMostFeatures = 64;  // 1 KiB of the 4 that a kernel's arguments may have

template <typename T>
struct FeatureList {
  Rows<T> features[kMostFeatures];
  int count;
};

template <typename T>
FeatureList<T> feature_list(std::span<const DeviceMatrix<T>> features) {
  check(features.size() <= kMostFeatures, "token_embedding: more than 64 features on a GPU");
  FeatureList<T> list{};
  for (const DeviceMatrix<T>& feature : features) list.features[list.count++] = rows_of(feature);
  return list;
}

/// TokenEmbeddingForward as kernels see it.
struct TokenRows {
  FeatureList<const float> list;
  Rows<const float> position;
  const std::int64_t* positions;
  float scale;

  explicit TokenRows(const TokenEmbeddingForward& args)
      : list(feature_list(args.features)),
        position(rows_of(args.position)),
        positions(args.positions.device_data()),
        scale(args.scale) {}

  /// Columns c to c + 3 of token t.
  template <Access kAccess>
  __device__ Four load(std::int64_t t, std::int64_t c, std::int64_t cols) const {
    if (c >= cols) return {};
    Four sum = load_four<kAccess>(position.row(positions[t]), c, cols);
    const auto add = [this](float a, float b) { return fmaf(scale, a, b); };
    for (int i = 0; i < list.count; ++i) {
      sum = map_four(add, load_four<kAccess>(list.features[i].row(t), c, cols), sum);
    }
    return sum;
  }
};

}  // namespace serrate
