#pragma once

#include <cstdint>
#include <vector>

#include "serrate/matrix_view.h"

namespace serrate {

/// The order of tokens, on the host, that gathers a very sparse square mask around its diagonal,
/// where it fills fewer tiles: reverse Cuthill-McKee (1969) on the graph whose edges are the pairs
/// that see one another either way. Entry p is the token that moves to place p; attention over the
/// tokens and the mask in that order gives its outputs in that order. Time: that of reading the
/// mask [num_tokens, num_tokens]; memory: 16 bytes an edge.
std::vector<std::int64_t> reverse_cuthill_mckee(MatrixView<const std::uint8_t> visible);

}  // namespace serrate
