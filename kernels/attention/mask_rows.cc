#include "kernels/attention/mask_rows.h"

#include <algorithm>
#include <variant>

#include "kernels/attention/batch.h"

namespace serrate {
namespace {

// One sequence's part of a batch.
struct Rows {
  QueryTileMask& queries;
  std::int64_t first_query, num_queries;  // of the sequence, in what has a row per query

  template <typename F>
  void for_each(F&& ranges_of) {
    for (std::int64_t i = 0; i < queries.count; ++i) queries.rows[i] = ranges_of(queries.begin + i);
  }

  void operator()(const FullMask&) {
    for_each([&](std::int64_t) { return TwoRanges{MaskRange{0, queries.num_keys}}; });
  }
  void operator()(const WindowMask& mask) {
    const std::int64_t shift = window_shift(mask, num_queries, queries.num_keys);
    for_each([&](std::int64_t i) {
      return TwoRanges{MaskRange{i + shift - mask.left, i + shift + mask.right + 1}};
    });
  }
  void operator()(const PrefixMask& mask) {
    const std::int64_t prefix = mask.prefix_lengths[queries.sequence];
    for_each([&](std::int64_t i) { return TwoRanges{MaskRange{0, std::max(prefix, i + 1)}}; });
  }
  void operator()(const DocumentMask& mask) {
    const auto offsets = mask.document_offsets;
    auto end = std::upper_bound(offsets.begin(), offsets.end(), first_query + queries.begin);
    for_each([&](std::int64_t i) {
      while (*end <= first_query + i) ++end;
      return TwoRanges{MaskRange{std::max(end[-1], first_query) - first_query,
                                 std::min(*end - first_query, i + mask.right + 1)}};
    });
  }
  void operator()(const HstuMask& mask) {
    const std::int64_t targets = mask.num_targets.empty() ? 0 : mask.num_targets[queries.sequence];
    const std::int64_t history_end = num_queries - targets;
    const std::int64_t contexts_but_one = std::max<std::int64_t>(mask.num_contexts - 1, 0);
    for_each([&](std::int64_t i) {
      if (i < std::min(mask.num_contexts, history_end)) {
        return TwoRanges{MaskRange{0, history_end}};
      }
      const std::int64_t last = std::min(i, history_end);
      const bool looks_back_to_the_first =
          last - contexts_but_one <= mask.window ||
          (mask.full_length > 0 && last >= history_end - mask.full_length);
      const std::int64_t first = looks_back_to_the_first ? 0 : last - mask.window;
      if (i < history_end) return TwoRanges{MaskRange{first, i + 1}};
      const std::int64_t group = (i - history_end) / mask.target_group_size;
      return TwoRanges{MaskRange{first, history_end},
                       MaskRange{history_end + group * mask.target_group_size, i + 1}};
    });
  }
  void operator()(const RowMask& mask) {
    for_each([&](std::int64_t i) {
      const std::int64_t* range = &mask.ranges[(first_query + i) * 4];
      return TwoRanges{MaskRange{range[0], range[1]}, MaskRange{range[2], range[3]}};
    });
  }
  void operator()(const ColumnMask&) {}
  void operator()(const BlockMask&) {}
};

}  // namespace

std::int64_t window_shift(const WindowMask& mask, std::int64_t num_queries, std::int64_t num_keys) {
  return mask.corner == MaskCorner::kTopLeft ? 0 : num_keys - num_queries;
}

void key_ranges(const AttentionForward& args, QueryTileMask& queries) {
  const SequenceQueries all = queries_of(args, queries.sequence);
  std::visit(Rows{queries, all.in_out, all.count}, args.mask);
  queries.rows_hull = {};
  for (std::int64_t i = 0; i < queries.count; ++i) {
    for (std::size_t r = 0; r < 2; ++r) {
      MaskRange& range = queries.rows[i][r];
      range = {std::max<std::int64_t>(range.begin, 0), std::min(range.end, queries.num_keys)};
      queries.rows_hull[r].add(range);
    }
  }
}

}  // namespace serrate
