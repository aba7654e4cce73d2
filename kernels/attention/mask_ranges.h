#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "serrate/kernels/attention_mask.h"

namespace serrate {

// What queries see, by the definitions of their masks, for code that runs where masks are. What a
// range holds outside of the sequence's keys does not count.

/// [begin, end), empty if they meet or cross.
struct MaskRange {
  std::int64_t begin = 0, end = 0;
};
using TwoRanges = std::array<MaskRange, 2>;

/// From a query to its own key.
constexpr std::int64_t window_shift(const WindowMask& mask, std::int64_t num_queries,
                                    std::int64_t num_keys) {
  return mask.corner == MaskCorner::kTopLeft ? 0 : num_keys - num_queries;
}

constexpr MaskRange window_keys(const WindowMask& mask, std::int64_t own) {
  return {own - mask.left, own + mask.right + 1};
}

constexpr MaskRange prefix_keys(const PrefixMask& mask, std::int64_t sequence, std::int64_t query) {
  return {0, std::max(mask.prefix_lengths.device_data()[sequence], query + 1)};
}

/// `document`: [begin, end) of the query's, counted as `first_query`, that of the sequence, is.
constexpr MaskRange document_keys(const DocumentMask& mask, const MaskRange& document,
                                  std::int64_t first_query, std::int64_t query) {
  return {std::max(document.begin, first_query) - first_query,
          std::min(document.end - first_query, query + mask.right + 1)};
}

constexpr std::int64_t targets_of(const HstuMask& mask, std::int64_t sequence) {
  return mask.num_targets.empty() ? 0 : mask.num_targets.device_data()[sequence];
}

/// `history_end`: the first candidate.
constexpr TwoRanges hstu_keys(const HstuMask& mask, std::int64_t history_end, std::int64_t query) {
  if (query < std::min(mask.num_contexts, history_end)) return {{{0, history_end}, {}}};
  const std::int64_t contexts_but_one = std::max<std::int64_t>(mask.num_contexts - 1, 0);
  const std::int64_t last = std::min(query, history_end);
  const bool looks_back_to_the_first =
      last - contexts_but_one <= mask.window ||
      (mask.full_length > 0 && last >= history_end - mask.full_length);
  const std::int64_t first = looks_back_to_the_first ? 0 : last - mask.window;
  if (query < history_end) return {{{first, query + 1}, {}}};
  const std::int64_t group = (query - history_end) / mask.target_group_size;
  return {{{first, history_end}, {history_end + group * mask.target_group_size, query + 1}}};
}

/// Whether these rise from query `first` to `last`: from one to the next, neither range begins or
/// ends before it did. So do those of every window, prefix and document.
constexpr bool hstu_ranges_rise(const HstuMask& mask, std::int64_t history_end, std::int64_t first,
                                std::int64_t last) {
  const std::int64_t contexts_end = std::min(mask.num_contexts, history_end);
  const auto are_apart = [&](std::int64_t place) { return first < place && place <= last; };
  if (are_apart(contexts_end) || are_apart(history_end)) return false;
  // From there on, they look back to the first key again.
  return mask.full_length <= 0 || first < contexts_end || first >= history_end ||
         !are_apart(history_end - mask.full_length);
}

/// Entry `token` of a mask of ranges.
constexpr TwoRanges ranges_at(DeviceSpan<const std::int64_t> ranges, std::int64_t token) {
  const std::int64_t* range = ranges.device_data() + token * 4;
  return {{{range[0], range[1]}, {range[2], range[3]}}};
}

constexpr const BitMaskView& bit_mask(const BlockMask& mask, std::int64_t sequence) {
  return mask.masks.device_data()[mask.masks.size() == 1 ? 0 : sequence];
}

}  // namespace serrate
