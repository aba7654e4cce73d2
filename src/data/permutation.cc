#include "src/data/permutation.h"

#include <bit>

#include "serrate/error.h"
#include "serrate/random.h"

namespace serrate {

std::int64_t permuted_index(std::int64_t index, std::int64_t size, std::uint64_t seed,
                            std::uint32_t stream) {
  check(0 <= index && index < size, "permuted_index needs an index inside its range");
  constexpr std::uint64_t kRounds = 8;
  const int half_bits = (std::bit_width(static_cast<std::uint64_t>(size - 1)) + 1) / 2;
  const std::uint64_t mask = (std::uint64_t{1} << half_bits) - 1;
  auto value = static_cast<std::uint64_t>(index);
  do {
    std::uint64_t left = value >> half_bits;
    std::uint64_t right = value & mask;
    for (std::uint64_t round = 0; round < kRounds; ++round) {
      const std::uint64_t mixed =
          left ^ (random_bits(seed, RandomUse::kShuffle, stream, round << 32 | right) & mask);
      left = right;
      right = mixed;
    }
    value = left << half_bits | right;
  } while (value >= static_cast<std::uint64_t>(size));
  return static_cast<std::int64_t>(value);
}

}  // namespace serrate
