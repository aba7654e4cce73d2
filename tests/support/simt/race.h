#pragma once

#include <cstdint>
#include <optional>

namespace simt {

/// One access to a word, kept to tell races. 16 bytes; all zero is no access.
struct Access {
  std::uint32_t operation = 0;  // a kernel or a copy
  std::uint32_t thread = 0;     // of the grid
  std::uint32_t epoch = 0;      // of the thread: how many times it has synchronised
  std::uint32_t code : 26 = 0;  // return address in the program
  std::uint32_t bytes : 4 = 0;  // of the word, a bit each
  std::uint32_t writes : 1 = 0;
  std::uint32_t atomic : 1 = 0;
};
static_assert(sizeof(Access) == 16);

/// The accesses kept for four bytes: with bfloat16 two threads own a half each and both are read.
struct Word {
  Access kept[4];
};
static_assert(sizeof(Word) == 64);

/// Records an access; returns the one that it races with: both touch a byte, at least one writes,
/// not both are atomic, and ordered(earlier) is false. An access that a later one makes redundant
/// is forgotten; when all are needed, victim() says which one goes.
template <typename Ordered, typename Victim>
std::optional<Access> record(Word& word, const Access& now, const Ordered& ordered,
                             Victim&& victim) {
  Access* free = nullptr;
  for (Access& earlier : word.kept) {
    if (earlier.operation == 0) {
      if (!free) free = &earlier;
      continue;
    }
    const bool before = ordered(earlier);
    if (!before && (earlier.bytes & now.bytes) && (earlier.writes || now.writes) &&
        !(earlier.atomic && now.atomic)) {
      const Access racing = earlier;
      earlier = now;  // so that one race is not reported over and over
      return racing;
    }
    // Whatever would race with the earlier access alone was found, or races with this one too.
    const bool covered = (earlier.bytes & ~now.bytes) == 0 && (now.writes || !earlier.writes) &&
                         (earlier.atomic || !now.atomic);
    if (before && covered) {
      earlier = {};
      if (!free) free = &earlier;
    }
  }
  if (!free) free = &word.kept[victim() % 4];
  *free = now;
  return std::nullopt;
}

}  // namespace simt
