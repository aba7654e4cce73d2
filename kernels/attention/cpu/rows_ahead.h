#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "hwy/base.h"
#include "hwy/cache_control.h"
#include "kernels/attention/view.h"

namespace serrate {

/// Asks memory for the rows of a task to come, a few with every call, while products keep the
/// processor busy: the rows of a head lie a token apart, which hardware does not foresee. Waiting
/// for those of sequences of 16 to 100 tokens is half of the time.
class RowsAhead {
 public:
  void clear() { num_views_ = view_ = row_ = 0; }

  void add(const InputHeads& x, std::int64_t token, std::int64_t rows, std::int64_t head,
           std::int64_t head_dim) {
    const std::int64_t size = x.type == DataType::kFloat32 ? 4 : 2;
    const std::int64_t row_bytes = head_dim * size;
    rows = std::min(rows, kMostBytes / row_bytes);
    if (rows <= 0) return;
    views_[num_views_++] = {static_cast<const char*>(x.device_data) +
                                (token * x.token_stride + head * x.head_stride) * size,
                            x.token_stride * size, row_bytes, rows};
  }

  HWY_INLINE void operator()() {
    for (std::int64_t n = 0; n < kRowsAtOnce && view_ < num_views_; ++n) {
      const View& view = views_[view_];
      const char* row = view.data + row_ * view.stride;
      for (std::int64_t i = 0; i < view.row_bytes; i += kLine) hwy::Prefetch(row + i);
      if (++row_ == view.rows) ++view_, row_ = 0;
    }
  }

 private:
  static constexpr std::int64_t kRowsAtOnce = 12, kLine = 64;
  static constexpr std::int64_t kMostBytes = 64 << 10;  // of a view: the second cache holds eight
  struct View {
    const char* data;
    std::int64_t stride, row_bytes, rows;
  };
  std::array<View, 8> views_;
  std::int64_t num_views_ = 0, view_ = 0, row_ = 0;
};

/// Whether the rows of a call are more than what caches near a core may still hold of them.
inline bool outgrows_cache(const AttentionView& args) {
  constexpr std::int64_t kNearCaches = 8 << 20;
  const std::int64_t keys = args.key_offsets.back() - args.key_offsets.front();
  const std::int64_t rows = 2 * (end_of_queries(args) * args.num_heads + keys * args.num_key_heads);
  return rows * args.head_dim * 4 > kNearCaches;
}

}  // namespace serrate
