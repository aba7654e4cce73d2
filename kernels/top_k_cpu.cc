#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "serrate/error.h"
#include "serrate/kernels/top_k.h"

namespace serrate {
namespace {

struct Candidate {
  float score;
  std::int64_t id;
};

bool is_better(const Candidate& a, const Candidate& b) {
  return a.score > b.score || (a.score == b.score && a.id < b.id);
}

std::vector<std::int64_t> excluded_of(const TopK& args, std::int64_t r) {
  if (args.excluded_offsets.empty()) return {};
  std::vector<std::int64_t> excluded(args.excluded.begin() + args.excluded_offsets[r],
                                     args.excluded.begin() + args.excluded_offsets[r + 1]);
  std::sort(excluded.begin(), excluded.end());
  return excluded;
}

// The k best so far as a heap with the worst on top. Most scores fail one comparison with it.
// False when a score is NaN: it has no place in the order.
bool select_row(const TopK& args, std::int64_t r, std::vector<Candidate>& best) {
  const float* scores = args.scores.row(r);
  const auto k = static_cast<std::size_t>(args.best_ids.cols);
  const std::vector<std::int64_t> excluded = excluded_of(args, r);
  best.clear();
  for (std::int64_t c = 0; c < args.scores.cols; ++c) {
    if (best.size() == k && k > 0 && scores[c] <= best.front().score) continue;
    if (std::isnan(scores[c])) return false;
    const std::int64_t id = args.first_id + c;
    if (k == 0 || std::binary_search(excluded.begin(), excluded.end(), id)) continue;
    if (best.size() == k) {
      std::pop_heap(best.begin(), best.end(), is_better);
      best.pop_back();
    }
    best.push_back({scores[c], id});
    std::push_heap(best.begin(), best.end(), is_better);
  }
  std::sort_heap(best.begin(), best.end(), is_better);
  return true;
}

void write_row(const TopK& args, std::int64_t r, std::vector<Candidate>& best) {
  best.resize(args.best_ids.cols, {-std::numeric_limits<float>::infinity(), -1});
  for (std::int64_t i = 0; i < args.best_ids.cols; ++i) {
    args.best_scores.row(r)[i] = best[i].score;
    args.best_ids.row(r)[i] = best[i].id;
  }
}

}  // namespace

template <>
void top_k_on<DeviceType::kCpu>(const TopK& args, const Stream& stream) {
  std::int64_t nan_row = args.scores.rows;
#pragma omp parallel num_threads(stream.num_threads()) reduction(min : nan_row)
  {
    std::vector<Candidate> best;
#pragma omp for schedule(static)
    for (std::int64_t r = 0; r < args.scores.rows; ++r) {
      if (select_row(args, r, best)) {
        write_row(args, r, best);
      } else {
        nan_row = std::min(nan_row, r);
      }
    }
  }
  if (nan_row < args.scores.rows) {
    throw Error(
        fmt::format("top_k: row {} has a score that is not a number (has the training "
                    "diverged?) try a lower learning rate",
                    nan_row));
  }
}

}  // namespace serrate
