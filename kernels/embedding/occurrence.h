#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <span>

#include "serrate/error.h"
#include "serrate/kernels/embedding_update.h"

namespace serrate {

// What RowGroups::occurrences holds on a CPU: which bag of which segment an occurrence stands in,
// and so which row of which d_output is its gradient.
constexpr int kBagBits = 40;

constexpr std::uint64_t pack_bag(std::int64_t segment, std::int64_t bag) {
  return static_cast<std::uint64_t>(segment) << kBagBits | static_cast<std::uint64_t>(bag);
}
constexpr std::int64_t segment_of(std::uint64_t packed) {
  return static_cast<std::int64_t>(packed >> kBagBits);
}
constexpr std::int64_t bag_of(std::uint64_t packed) {
  return static_cast<std::int64_t>(packed & ((std::uint64_t{1} << kBagBits) - 1));
}

// What a CPU sorts to group occurrences: the row, and below it the number of the occurrence, which
// is not compared but comes along.
struct KeyFormat {
  int occurrence_bits;
  int row_bits;

  constexpr std::uint64_t key(std::int64_t row, std::int64_t occurrence) const {
    return static_cast<std::uint64_t>(row) << occurrence_bits |
           static_cast<std::uint64_t>(occurrence);
  }
  constexpr std::int64_t row(std::uint64_t key) const {
    return static_cast<std::int64_t>(key >> occurrence_bits);
  }
  constexpr std::int64_t occurrence(std::uint64_t key) const {
    return static_cast<std::int64_t>(key & ((std::uint64_t{1} << occurrence_bits) - 1));
  }
};

inline KeyFormat key_format(std::int64_t num_rows, std::int64_t num_occurrences) {
  const auto bits = [](std::int64_t count) {
    return static_cast<int>(std::bit_width(static_cast<std::uint64_t>(count)));
  };
  const KeyFormat format{bits(num_occurrences), bits(num_rows)};
  check(format.occurrence_bits + format.row_bits <= 64,
        "too many rows and ids for one update; a row and an id number have to fit in 64 bits");
  return format;
}

// What a GPU sorts, and then RowGroups::occurrences holds: the row, and below it which bag of which
// segment the occurrence stands in.
struct OccurrenceFormat {
  int segment_bits, bag_bits;

  constexpr std::uint64_t key(std::int64_t row, std::int64_t segment, std::int64_t bag) const {
    return (static_cast<std::uint64_t>(row) << segment_bits | static_cast<std::uint64_t>(segment))
               << bag_bits |
           static_cast<std::uint64_t>(bag);
  }
  constexpr int row_begin() const { return segment_bits + bag_bits; }
  constexpr std::int64_t row(std::uint64_t key) const {
    return static_cast<std::int64_t>(key >> row_begin());
  }
  constexpr std::int64_t segment(std::uint64_t key) const {
    return static_cast<std::int64_t>(key >> bag_bits & ((std::uint64_t{1} << segment_bits) - 1));
  }
  constexpr std::int64_t bag(std::uint64_t key) const {
    return static_cast<std::int64_t>(key & ((std::uint64_t{1} << bag_bits) - 1));
  }
};

// The bits that tell so many things apart.
inline int bits_for(std::int64_t count) {
  return std::bit_width(static_cast<std::uint64_t>(std::max<std::int64_t>(count - 1, 1)));
}

inline OccurrenceFormat occurrence_format(std::span<const GradientSegment> segments) {
  std::int64_t most_bags = 0;
  for (const GradientSegment& s : segments) {
    most_bags = std::max(most_bags, std::ssize(s.offsets) - 1);
  }
  return {bits_for(std::ssize(segments)), bits_for(most_bags)};
}

}  // namespace serrate
