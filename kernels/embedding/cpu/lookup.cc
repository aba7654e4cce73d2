#include <omp.h>

#include <vector>

#include "kernels/jagged/split.h"
#include "kernels/simd/targets.h"
#include "serrate/kernels/embedding_lookup.h"

#ifndef SERRATE_KERNELS_HOST_LOOKUP_SEGMENT
#define SERRATE_KERNELS_HOST_LOOKUP_SEGMENT
namespace serrate {

// LookupSegment as the CPU reads it.
struct HostLookupSegment {
  InputMatrix table;  // on the host
  std::span<const std::int64_t> indices, offsets;
  std::span<const float> weights;
  MatrixView<float> output;
};

}  // namespace serrate
#endif

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/embedding/cpu/lookup.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/embedding/cpu/table_rows-inl.h"
#include "kernels/simd/row_ops-inl.h"

HWY_BEFORE_NAMESPACE();
namespace serrate::HWY_NAMESPACE {

// How far ahead of the sum rows are prefetched, into the second-level cache and later into the
// first: a core has many more misses on their way in the second level than in the first, where any
// distance alone takes half as long again (docs/performance.md).
constexpr std::int64_t kRowsAhead = 12;
constexpr std::int64_t kRowsFarAhead = 48;

// The rows of one bag, from position `first` of the segment's indices, for sum_rows.
template <class Value>
struct RowsOfBag {
  const Value* table;
  std::int64_t stride;
  const std::int64_t* indices;  // of the segment
  const float* weights;         // of the segment, or null
  std::int64_t first;
  std::int64_t last;  // position in the segment's indices

  const Value* row(std::int64_t i) const { return table + indices[first + i] * stride; }
  const Value* row_ahead(std::int64_t i) const {
    return table + indices[HWY_MIN(first + i + kRowsAhead, last)] * stride;
  }
  const Value* row_far_ahead(std::int64_t i) const {
    return table + indices[HWY_MIN(first + i + kRowsFarAhead, last)] * stride;
  }
  float weight(std::int64_t i) const { return weights ? weights[first + i] : 1.0f; }
};

template <int kVectors, class Value>
void pool_bags_of(const HostLookupSegment& segment, std::int64_t begin, std::int64_t end) {
  const std::int64_t cols = segment.table.cols;
  RowsOfBag<Value> rows{static_cast<const Value*>(segment.table.device_data()),
                        segment.table.stride,
                        segment.indices.data(),
                        segment.weights.empty() ? nullptr : segment.weights.data(),
                        0,
                        std::ssize(segment.indices) - 1};
  for (std::int64_t bag = begin; bag < end; ++bag) {
    rows.first = segment.offsets[bag] - segment.offsets[0];
    const std::int64_t count = segment.offsets[bag + 1] - segment.offsets[bag];
    sum_rows<kVectors>(rows, count, cols, segment.output.row(bag));
  }
}

void pool_bags(const HostLookupSegment& segment, std::int64_t begin, std::int64_t end) {
  dispatch_width(segment.table.cols, [&](auto vectors) {
    switch (segment.table.type) {
      case DataType::kFloat32:
        return pool_bags_of<vectors(), float>(segment, begin, end);
      case DataType::kFloat16:
        return pool_bags_of<vectors(), Float16>(segment, begin, end);
      case DataType::kBFloat16:
        return pool_bags_of<vectors(), BFloat16>(segment, begin, end);
    }
  });
}

}  // namespace serrate::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace serrate {

HWY_EXPORT(pool_bags);

template <>
void embedding_lookup_on<DeviceType::kCpu>(std::span<const LookupSegment> segments,
                                           const Stream& stream) {
  std::vector<HostLookupSegment> host;
  for (const LookupSegment& s : segments) {
    check_host_may_read(stream);
    host.push_back({s.table, host_view(s.indices, stream), host_view(s.offsets, stream),
                    host_view(s.weights, stream), host_view(s.output, stream)});
  }
#pragma omp parallel num_threads(stream.num_threads())
  for (const HostLookupSegment& segment : host) {
    const int thread = omp_get_thread_num(), num_threads = omp_get_num_threads();
    const auto pool = HWY_DYNAMIC_DISPATCH(pool_bags);
    pool(segment, split_jagged(segment.offsets, thread, num_threads),
         split_jagged(segment.offsets, thread + 1, num_threads));
  }
}

}  // namespace serrate
#endif
