#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/simd/targets.h"
#include "serrate/kernels/top_k.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/dense/cpu/top_k.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/simd/rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace serrate::HWY_NAMESPACE {

// The first score in [begin, size) that is not <= threshold (a NaN is none, nor is anything when
// the threshold is NaN), or size.
std::int64_t next_above(const float* scores, std::int64_t begin, std::int64_t size,
                        float threshold) {
  constexpr std::int64_t step = hn::MaxLanes(kFloats);
  const FloatVector bound = hn::Set(kFloats, threshold);
  std::int64_t c = begin;
  for (; c + step <= size; c += step) {
    const auto is_above = hn::Not(hn::Le(hn::LoadU(kFloats, scores + c), bound));
    const std::intptr_t lane = hn::FindFirstTrue(kFloats, is_above);
    if (lane >= 0) return c + lane;
  }
  while (c < size && scores[c] <= threshold) ++c;
  return c;
}

}  // namespace serrate::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace serrate {
HWY_EXPORT(next_above);

namespace {

// TopK as the CPU reads it.
struct HostTopK {
  MatrixView<const float> scores;
  std::int64_t first_id;
  std::span<const std::int64_t> excluded, excluded_offsets;
  MatrixView<float> best_scores;
  MatrixView<std::int64_t> best_ids;
};

struct Candidate {
  float score;
  std::int64_t id;
};

bool is_better(const Candidate& a, const Candidate& b) {
  return a.score > b.score || (a.score == b.score && a.id < b.id);
}

std::vector<std::int64_t> excluded_of(const HostTopK& args, std::int64_t r) {
  if (args.excluded_offsets.empty()) return {};
  std::vector<std::int64_t> excluded(args.excluded.begin() + args.excluded_offsets[r],
                                     args.excluded.begin() + args.excluded_offsets[r + 1]);
  std::sort(excluded.begin(), excluded.end());
  return excluded;
}

// Leaves the k best, in no order.
void keep_best(std::vector<Candidate>& candidates, std::size_t k) {
  if (candidates.size() <= k) return;
  std::nth_element(candidates.begin(), candidates.begin() + k, candidates.end(), is_better);
  candidates.resize(k);
}

// Scores above a threshold are gathered; whenever there are many, the k best of them are kept and
// the worst of those is the new threshold. Later scores that equal it have larger ids. False when
// a score is NaN: it has no place in the order.
bool select_row(const HostTopK& args, std::int64_t r, std::vector<Candidate>& best) {
  const float* scores = args.scores.row(r);
  const std::int64_t size = args.scores.cols;
  const auto k = static_cast<std::size_t>(args.best_ids.cols);
  const std::vector<std::int64_t> excluded = excluded_of(args, r);
  const auto next = HWY_DYNAMIC_DISPATCH(next_above);
  float threshold = std::numeric_limits<float>::quiet_NaN();
  best.clear();
  for (std::int64_t c = next(scores, 0, size, threshold); c < size;
       c = next(scores, c + 1, size, threshold)) {
    if (std::isnan(scores[c])) return false;
    const std::int64_t id = args.first_id + c;
    if (std::binary_search(excluded.begin(), excluded.end(), id)) continue;
    best.push_back({scores[c], id});
    if (best.size() < 2 * k + 64) continue;
    keep_best(best, k);
    threshold = k == 0 ? std::numeric_limits<float>::infinity()
                       : std::max_element(best.begin(), best.end(), is_better)->score;
  }
  keep_best(best, k);
  std::sort(best.begin(), best.end(), is_better);
  return true;
}

// Places that are left have no id, and the score `rest`.
void write_row(const HostTopK& args, std::int64_t r, std::vector<Candidate>& best, float rest) {
  best.resize(args.best_ids.cols, {rest, -1});
  for (std::int64_t i = 0; i < args.best_ids.cols; ++i) {
    args.best_scores.row(r)[i] = best[i].score;
    args.best_ids.row(r)[i] = best[i].id;
  }
}

}  // namespace

template <>
void top_k_on<DeviceType::kCpu>(const TopK& top, const Stream& stream) {
  const HostTopK args{host_view(top.scores, stream),      top.first_id,
                      host_view(top.excluded, stream),    host_view(top.excluded_offsets, stream),
                      host_view(top.best_scores, stream), host_view(top.best_ids, stream)};
#pragma omp parallel num_threads(stream.num_threads())
  {
    std::vector<Candidate> best;
#pragma omp for schedule(static)
    for (std::int64_t r = 0; r < args.scores.rows; ++r) {
      if (select_row(args, r, best)) {
        write_row(args, r, best, -std::numeric_limits<float>::infinity());
      } else {
        best.clear();
        write_row(args, r, best, std::numeric_limits<float>::quiet_NaN());
      }
    }
  }
}

}  // namespace serrate
#endif  // HWY_ONCE
