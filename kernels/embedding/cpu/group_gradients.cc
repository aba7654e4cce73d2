#include <omp.h>

#include <numeric>
#include <utility>
#include <vector>

#include "kernels/embedding/occurrence.h"
#include "kernels/jagged/split.h"
#include "serrate/kernels/embedding_update.h"

namespace serrate {
namespace {

// The occurrences of a GradientSegment, as the CPU reads them.
struct GroupedSegment {
  std::span<const std::int64_t> indices, offsets;
  std::span<const float> weights;
};

// The part of [0, size) that falls to the calling thread.
std::pair<std::int64_t, std::int64_t> thread_range(std::int64_t size) {
  const std::int64_t thread = omp_get_thread_num(), num_threads = omp_get_num_threads();
  return {size * thread / num_threads, size * (thread + 1) / num_threads};
}

// keys[o] and bags[o] for occurrence o, in segment order.
void number_occurrences(std::span<const GroupedSegment> segments, KeyFormat format,
                        std::span<std::uint64_t> keys, std::span<std::uint64_t> bags,
                        int num_threads) {
#pragma omp parallel num_threads(num_threads)
  {
    const int thread = omp_get_thread_num(), threads = omp_get_num_threads();
    std::int64_t base = 0;
    for (std::int64_t s = 0; s < std::ssize(segments); ++s) {
      const auto& [indices, offsets, weights] = segments[s];
      const std::int64_t end = split_jagged(offsets, thread + 1, threads);
      for (std::int64_t bag = split_jagged(offsets, thread, threads); bag < end; ++bag) {
        for (std::int64_t i = offsets[bag] - offsets[0]; i < offsets[bag + 1] - offsets[0]; ++i) {
          keys[base + i] = format.key(indices[i], base + i);
          bags[base + i] = pack_bag(s, bag);
        }
      }
      base += std::ssize(indices);
    }
  }
}

// One pass of a radix sort: moves keys by the digit at `shift`. Stable: equal digits stay in
// order, also over the threads, which count and move the same run of keys each.
void sort_by_digit(std::span<const std::uint64_t> from, std::span<std::uint64_t> to, int shift,
                   int digit_bits, int num_threads) {
  const std::int64_t num_digits = std::int64_t{1} << digit_bits;
  const auto digit = [=](std::uint64_t key) {
    return static_cast<std::int64_t>(key >> shift) & (num_digits - 1);
  };
  std::vector<std::int64_t> positions(num_threads * num_digits);  // [num_threads, num_digits]
#pragma omp parallel num_threads(num_threads)
  {
    const auto [begin, end] = thread_range(std::ssize(from));
    std::int64_t* position = positions.data() + omp_get_thread_num() * num_digits;
    for (std::int64_t i = begin; i < end; ++i) ++position[digit(from[i])];
#pragma omp barrier
#pragma omp single
    {
      std::int64_t sum = 0;
      for (std::int64_t d = 0; d < num_digits; ++d) {
        for (std::int64_t thread = 0; thread < num_threads; ++thread) {
          sum += std::exchange(positions[thread * num_digits + d], sum);
        }
      }
    }
    for (std::int64_t i = begin; i < end; ++i) to[position[digit(from[i])]++] = from[i];
  }
}

// Sorts by row; returns the one of the two arrays that holds the result.
std::span<const std::uint64_t> sort_by_row(std::span<std::uint64_t> keys,
                                           std::span<std::uint64_t> other, KeyFormat format,
                                           int num_threads) {
  constexpr int kMaxDigitBits = 11;  // the counts of one thread fill a third of the L1 cache
  const int passes = (format.row_bits + kMaxDigitBits - 1) / kMaxDigitBits;
  const int digit_bits = passes > 0 ? (format.row_bits + passes - 1) / passes : 0;
  for (int pass = 0; pass < passes; ++pass) {
    sort_by_digit(keys, other, format.occurrence_bits + pass * digit_bits, digit_bits, num_threads);
    std::swap(keys, other);
  }
  return keys;
}

// The weights of the grouped occurrences: 1 in a segment without.
void gather_weights(std::span<const GroupedSegment> segments, std::span<const std::uint64_t> sorted,
                    KeyFormat format, std::span<const std::uint64_t> occurrences,
                    std::span<float> weights, int num_threads) {
  std::vector<std::int64_t> first_occurrence{0};
  for (const GroupedSegment& s : segments) {
    first_occurrence.push_back(first_occurrence.back() + std::ssize(s.indices));
  }
#pragma omp parallel for num_threads(num_threads) schedule(static)
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const std::int64_t segment = segment_of(occurrences[i]);
    const auto from = segments[segment].weights;
    const std::int64_t position = format.occurrence(sorted[i]) - first_occurrence[segment];
    weights[i] = from.empty() ? 1.0f : from[position];
  }
}

// What write_groups fills: the arrays of RowGroups.
struct HostGroups {
  std::span<std::int64_t> num_rows, rows, row_offsets;
  std::span<std::uint64_t> occurrences;
};

// Fills rows, row_offsets and occurrences from the sorted keys; bags are in the order of
// occurrences. A thread does whole rows.
void write_groups(std::span<const std::uint64_t> sorted, std::span<const std::uint64_t> bags,
                  KeyFormat format, const HostGroups& groups, int num_threads) {
  const std::int64_t size = std::ssize(sorted);
  const auto begins_row = [&](std::int64_t i) {
    return i == 0 || format.row(sorted[i]) != format.row(sorted[i - 1]);
  };
  const auto row_start = [&](std::int64_t i) {
    while (i < size && !begins_row(i)) ++i;
    return i;
  };
  std::int64_t *rows = groups.rows.data(), *row_offsets = groups.row_offsets.data();
  std::uint64_t* occurrences = groups.occurrences.data();
  std::vector<std::int64_t> first_row(num_threads + 1, 0);
#pragma omp parallel num_threads(num_threads)
  {
    const auto range = thread_range(size);
    const std::int64_t begin = row_start(range.first), end = row_start(range.second);
    std::int64_t num_rows = 0;
    for (std::int64_t i = begin; i < end; ++i) num_rows += begins_row(i);
    first_row[omp_get_thread_num() + 1] = num_rows;
#pragma omp barrier
#pragma omp single
    std::partial_sum(first_row.begin(), first_row.end(), first_row.begin());
    // Each occurrence writes its row and the row's end so far, without a branch.
    std::int64_t row = first_row[omp_get_thread_num()] - 1;
    for (std::int64_t i = begin; i < end; ++i) {
      const std::uint64_t key = sorted[i];
      row += begins_row(i);
      rows[row] = format.row(key);
      row_offsets[row + 1] = i + 1;
      occurrences[i] = bags[format.occurrence(key)];
    }
  }
  row_offsets[0] = 0;
  groups.num_rows[0] = first_row.back();
}

}  // namespace

template <>
void group_gradients_on<DeviceType::kCpu>(std::span<const GradientSegment> segments,
                                          std::int64_t num_rows, RowGroups& groups,
                                          const Stream& stream) {
  const std::int64_t n = groups.num_occurrences;
  const int num_threads = stream.num_threads();
  const KeyFormat format = key_format(num_rows, n);
  std::vector<GroupedSegment> host;
  for (const GradientSegment& s : segments) {
    host.push_back(
        {host_view(s.indices, stream), host_view(s.offsets, stream), host_view(s.weights, stream)});
  }
  const auto scratch = host_view(groups.scratch.resize_discard(3 * n, stream), stream);
  const auto keys = scratch.subspan(0, n), other = scratch.subspan(n, n);
  const auto bags = scratch.subspan(2 * n, n);
  const HostGroups to{host_view(groups.num_rows.resize_discard(1, stream), stream),
                      host_view(groups.rows.resize_discard(n, stream), stream),
                      host_view(groups.row_offsets.resize_discard(n + 1, stream), stream),
                      host_view(groups.occurrences.span(), stream)};
  number_occurrences(host, format, keys, bags, num_threads);
  const auto sorted = sort_by_row(keys, other, format, num_threads);
  write_groups(sorted, bags, format, to, num_threads);
  gather_weights(host, sorted, format, to.occurrences, host_view(groups.weights.span(), stream),
                 num_threads);
}

}  // namespace serrate
