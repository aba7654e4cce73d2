#pragma once

#include <cstdint>

namespace serrate {

/// Where a random order of [0, size) has its element `index`: a bijection that is computed, so an
/// order needs no memory. Depends on (seed, stream) alone. A Feistel network over the smallest
/// power of four that holds `size`, walked until it lands inside (Black & Rogaway, CT-RSA'02).
std::int64_t permuted_index(std::int64_t index, std::int64_t size, std::uint64_t seed,
                            std::uint32_t stream);

}  // namespace serrate
