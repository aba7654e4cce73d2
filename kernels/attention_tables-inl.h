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
#include <span>

#include "hwy/highway.h"
#include "kernels/attention_batch.h"
#include "kernels/attention_bias-inl.h"
#include "kernels/attention_scratch.h"

HWY_BEFORE_NAMESPACE();
namespace serrate::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// How many of the boundaries are <= distance, from a guess that is mostly near.
HWY_INLINE std::int64_t entry_of(std::span<const std::int64_t> boundaries, std::int64_t distance,
                                 std::int64_t guess) {
  while (guess < std::ssize(boundaries) && boundaries[guess] <= distance) ++guess;
  while (guess > 0 && boundaries[guess - 1] > distance) --guess;
  return guess;
}

inline std::int64_t num_entries(const AttentionTable& table) {
  return std::ssize(table.boundaries) + 1;
}

/// The values of one head.
inline const float* values_of(const AttentionTable& table, std::int64_t head) {
  return table.values.data() +
         (std::ssize(table.values) == num_entries(table) ? 0 : head * num_entries(table));
}

/// Calls f(diagonal, entry) for the diagonals of a tile: that of query q and key r is
/// q - r + keys - 1.
template <typename F>
void for_each_diagonal(const AttentionTable& table, const TilePlace& place, const TileMask& mask,
                       F&& f) {
  const std::int64_t least = place.query - place.key - (mask.keys - 1);
  std::int64_t entry = std::upper_bound(table.boundaries.begin(), table.boundaries.end(), least) -
                       table.boundaries.begin();
  for (std::int64_t i = 0; i < mask.queries + mask.keys - 1; ++i) {
    entry = entry_of(table.boundaries, least + i, entry);
    f(i, entry);
  }
}

/// Calls f(key, query, entry) for the pairs of a tile that products need.
template <typename F>
void for_each_time(const AttentionForward& args, const TilePlace& place, const TileMask& mask,
                   F&& f) {
  const std::int64_t* query_times =
      &args.query_times[queries_of(args, place.sequence).in_out + place.query];
  const std::int64_t* key_times = &args.key_times[args.key_offsets[place.sequence] + place.key];
  const std::span<const std::int64_t> boundaries = args.time_table.boundaries;
  std::int64_t first = num_entries(args.time_table) / 2;
  for (std::int64_t r = 0; r < mask.keys; ++r) {
    const TileRange queries = mask.queries_of[r / kBlockRows];
    std::int64_t entry = first;
    for (std::int64_t q = queries.begin; q < queries.end; ++q) {
      entry = entry_of(boundaries, query_times[q] - key_times[r], entry);
      if (q == queries.begin) first = entry;
      f(r, q, entry);
    }
  }
}

/// scores += factor * the tables' biases.
inline void add_tables(const AttentionForward& args, const TilePlace& place, const TileMask& mask,
                       float factor, TableScratch& scratch, Tile<float> scores) {
  const hn::ScalableTag<float> d;
  if (!args.position_table.values.empty()) {
    const float* values = values_of(args.position_table, place.head);
    std::fill(std::begin(scratch.diagonals), std::end(scratch.diagonals), 0.0f);
    for_each_diagonal(args.position_table, place, mask, [&](std::int64_t i, std::int64_t entry) {
      scratch.diagonals[i] = factor * values[entry];
    });
    for (std::int64_t q = 0; q < mask.queries; q += kLanes) {
      const TileRange read = mask.read[q / kMaskBlock];
      for (std::int64_t r = read.begin; r < read.end; ++r) {
        float* row = scores.row(r) + q;
        const auto bias = hn::LoadU(d, scratch.diagonals + q - r + mask.keys - 1);
        hn::Store(hn::Add(hn::Load(d, row), bias), d, row);
      }
    }
  }
  if (!args.time_table.values.empty()) {
    const float* values = values_of(args.time_table, place.head);
    for_each_time(args, place, mask, [&](std::int64_t r, std::int64_t q, std::int64_t entry) {
      scores.row(r)[q] += factor * values[entry];
      scratch.entries[r * kTileQueries + q] = static_cast<std::uint16_t>(entry);
    });
  }
}

/// d_values += factor * d_scores, for those of one head that are not null. After add_tables.
inline void add_table_gradients(const AttentionForward& args, const TilePlace& place,
                                const TileMask& mask, float factor, Tile<const float> d_scores,
                                TableScratch& scratch, float* d_position, float* d_time) {
  const hn::ScalableTag<float> d;
  if (d_position) {
    std::fill(std::begin(scratch.diagonals), std::end(scratch.diagonals), 0.0f);
    for (std::int64_t q = 0; q < mask.queries; q += kLanes) {
      const TileRange read = mask.read[q / kMaskBlock];
      const std::int64_t lanes = std::min(kLanes, mask.queries - q);
      for (std::int64_t r = read.begin; r < read.end; ++r) {
        float* sum = scratch.diagonals + q - r + mask.keys - 1;
        const auto d_score = load_first(d, d_scores.row(r) + q, lanes);
        hn::StoreU(hn::Add(hn::LoadU(d, sum), d_score), d, sum);
      }
    }
    for_each_diagonal(args.position_table, place, mask, [&](std::int64_t i, std::int64_t entry) {
      d_position[entry] += factor * scratch.diagonals[i];
    });
  }
  if (d_time) {
    for (std::int64_t r = 0; r < mask.keys; ++r) {
      const TileRange queries = mask.queries_of[r / kBlockRows];
      const std::uint16_t* entries = scratch.entries + r * kTileQueries;
      for (std::int64_t q = queries.begin; q < queries.end;) {
        const std::uint16_t entry = entries[q];
        float sum = 0;  // of a run of pairs as far apart
        for (; q < queries.end && entries[q] == entry; ++q) sum += d_scores.row(r)[q];
        d_time[entry] += factor * sum;
      }
    }
  }
}

}  // namespace serrate::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // SERRATE_KERNELS_ATTENTION_TABLES_INL_H_
