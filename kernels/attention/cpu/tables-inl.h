// Biases gathered from tables by distance in place or time, and their gradients. Include in a file
// that foreach_target.h compiles once per target.
#if defined(SERRATE_KERNELS_ATTENTION_TABLES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SERRATE_KERNELS_ATTENTION_TABLES_INL_H_
#undef SERRATE_KERNELS_ATTENTION_TABLES_INL_H_
#else
#define SERRATE_KERNELS_ATTENTION_TABLES_INL_H_
#endif

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>

#include "hwy/highway.h"
#include "kernels/attention/cpu/bias-inl.h"
#include "kernels/attention/cpu/scratch.h"

HWY_BEFORE_NAMESPACE();
namespace serrate::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// How many of the boundaries are <= distance, from a guess that is mostly near.
HWY_INLINE std::int64_t entry_of(std::span<const std::int64_t> boundaries, std::int64_t distance,
                                 std::int64_t guess) {
  constexpr std::int64_t kNear = 4;
  const std::int64_t least = std::max<std::int64_t>(guess - kNear, 0);
  const std::int64_t most = std::min(guess + kNear, std::ssize(boundaries));
  while (guess < most && boundaries[guess] <= distance) ++guess;
  while (guess > least && boundaries[guess - 1] > distance) --guess;
  const bool is_found = (guess == 0 || boundaries[guess - 1] <= distance) &&
                        (guess == std::ssize(boundaries) || boundaries[guess] > distance);
  if (is_found) return guess;
  return std::upper_bound(boundaries.begin(), boundaries.end(), distance) - boundaries.begin();
}

/// The values of one head.
inline const float* values_of(const TableView& table, std::int64_t head) {
  return table.values.data() +
         (std::ssize(table.values) == num_entries(table) ? 0 : head * num_entries(table));
}

/// Calls f(diagonal, entry) for the diagonals of a tile: that of query q and key r is
/// q - r + keys - 1.
template <typename F>
void for_each_diagonal(const TableView& table, const TilePlace& place, const TileMask& mask,
                       F&& f) {
  const std::int64_t least = place.query - place.key - (mask.keys - 1);
  std::int64_t entry = std::upper_bound(table.boundaries.begin(), table.boundaries.end(), least) -
                       table.boundaries.begin();
  for (std::int64_t i = 0; i < mask.queries + mask.keys - 1; ++i) {
    entry = entry_of(table.boundaries, least + i, entry);
    f(i, entry);
  }
}

// The first of [begin, end) whose time is not from `least` to `greatest` after key_time.
HWY_INLINE std::int64_t end_of_run(const std::int64_t* times, std::int64_t begin, std::int64_t end,
                                   std::int64_t key_time, std::int64_t least,
                                   std::int64_t greatest) {
  const hn::ScalableTag<std::int64_t> d;
  constexpr std::int64_t kTimes = hn::MaxLanes(d);
  for (; begin + kTimes <= end; begin += kTimes) {
    const auto distance = hn::Sub(hn::LoadU(d, times + begin), hn::Set(d, key_time));
    const auto outside =
        hn::Or(hn::Lt(distance, hn::Set(d, least)), hn::Gt(distance, hn::Set(d, greatest)));
    if (!hn::AllFalse(d, outside)) return begin + hn::FindFirstTrue(d, outside);
  }
  while (begin < end && times[begin] - key_time >= least && times[begin] - key_time <= greatest) {
    ++begin;
  }
  return begin;
}

/// Calls f(key, first query, end, entry) for the pairs of a tile that products need, in runs of
/// queries that have the same entry: one after the other, as times mostly rise.
template <typename F>
void for_each_run_of_times(const AttentionView& args, const TilePlace& place, const TileMask& mask,
                           F&& f) {
  constexpr std::int64_t kLeast = std::numeric_limits<std::int64_t>::min();
  constexpr std::int64_t kGreatest = std::numeric_limits<std::int64_t>::max();
  const std::int64_t* query_times =
      &args.query_times[queries_of(args, place.sequence).in_out + place.query];
  const std::int64_t* key_times = &args.key_times[args.key_offsets[place.sequence] + place.key];
  const std::span<const std::int64_t> boundaries = args.time_table.boundaries;
  std::int64_t first = num_entries(args.time_table) / 2;
  for (std::int64_t r = 0; r < mask.keys; ++r) {
    const TileRange queries = mask.queries_of[r / kBlockRows];
    std::int64_t entry = first;
    for (std::int64_t q = queries.begin; q < queries.end;) {
      entry = entry_of(boundaries, query_times[q] - key_times[r], entry);
      if (q == queries.begin) first = entry;
      const std::int64_t least = entry == 0 ? kLeast : boundaries[entry - 1];
      const std::int64_t greatest =
          entry == std::ssize(boundaries) ? kGreatest : boundaries[entry] - 1;
      const std::int64_t end =
          end_of_run(query_times, q + 1, queries.end, key_times[r], least, greatest);
      f(r, q, end, entry);
      q = end;
    }
  }
}

/// scores += factor * the tables' biases.
inline void add_tables(const AttentionView& args, const TilePlace& place, const TileMask& mask,
                       float factor, Diagonals& diagonals, Tile<float> scores) {
  const hn::ScalableTag<float> d;
  if (!args.position_table.values.empty()) {
    const float* values = values_of(args.position_table, place.head);
    std::fill(std::begin(diagonals), std::end(diagonals), 0.0f);
    for_each_diagonal(args.position_table, place, mask, [&](std::int64_t i, std::int64_t entry) {
      diagonals[i] = factor * values[entry];
    });
    for (std::int64_t q = 0; q < mask.queries; q += kLanes) {
      const TileRange read = mask.read[q / kMaskBlock];
      for (std::int64_t r = read.begin; r < read.end; ++r) {
        float* row = scores.row(r) + q;
        const auto bias = hn::LoadU(d, diagonals + q - r + mask.keys - 1);
        hn::Store(hn::Add(hn::Load(d, row), bias), d, row);
      }
    }
  }
  if (!args.time_table.values.empty()) {
    const float* values = values_of(args.time_table, place.head);
    for_each_run_of_times(
        args, place, mask,
        [&](std::int64_t r, std::int64_t begin, std::int64_t end, std::int64_t entry) {
          const auto bias = hn::Set(d, factor * values[entry]);
          float* row = scores.row(r);
          for (std::int64_t q = begin; q < end; q += kLanes) {
            const std::int64_t lanes = std::min(kLanes, end - q);
            const auto sum = hn::Add(load_first(d, row + q, lanes), bias);
            hn::BlendedStore(sum, hn::FirstN(d, static_cast<std::size_t>(lanes)), d, row + q);
          }
        });
  }
}

/// d_values += factor * d_scores, for those of one head that are not null.
inline void add_table_gradients(const AttentionView& args, const TilePlace& place,
                                const TileMask& mask, float factor, Tile<const float> d_scores,
                                Diagonals& diagonals, float* d_position, float* d_time) {
  const hn::ScalableTag<float> d;
  if (d_position) {
    std::fill(std::begin(diagonals), std::end(diagonals), 0.0f);
    for (std::int64_t q = 0; q < mask.queries; q += kLanes) {
      const TileRange read = mask.read[q / kMaskBlock];
      const std::int64_t lanes = std::min(kLanes, mask.queries - q);
      for (std::int64_t r = read.begin; r < read.end; ++r) {
        float* sum = diagonals + q - r + mask.keys - 1;
        const auto d_score = load_first(d, d_scores.row(r) + q, lanes);
        hn::StoreU(hn::Add(hn::LoadU(d, sum), d_score), d, sum);
      }
    }
    for_each_diagonal(args.position_table, place, mask, [&](std::int64_t i, std::int64_t entry) {
      d_position[entry] += factor * diagonals[i];
    });
  }
  if (d_time) {
    for_each_run_of_times(
        args, place, mask,
        [&](std::int64_t r, std::int64_t begin, std::int64_t end, std::int64_t entry) {
          auto sum = hn::Zero(d);
          for (std::int64_t q = begin; q < end; q += kLanes) {
            const std::int64_t lanes = std::min(kLanes, end - q);
            sum = hn::Add(sum, load_first(d, d_scores.row(r) + q, lanes));
          }
          d_time[entry] += factor * hn::GetLane(hn::SumOfLanes(d, sum));
        });
  }
}

}  // namespace serrate::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // SERRATE_KERNELS_ATTENTION_TABLES_INL_H_
