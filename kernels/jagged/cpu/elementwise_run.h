#pragma once

#include <cstdint>

#include "kernels/output_path.h"
#include "serrate/kernels/jagged_elementwise.h"

namespace serrate {

/// A sample's part in rows [begin, end) of d_y, and these rows of its d_x (unless it has no data);
/// the last of them take those that y does not have. Of a sum, x is d_z and y is empty.
struct GradientRun {
  Elementwise op;
  MatrixView<const float> x, y, d_z;
  MatrixView<float> d_x, d_y;
  std::int64_t begin, end;
  bool is_shared;  ///< d_y is: the part is added
  OutputPath path_of_d_x, path_of_d_y;
};

}  // namespace serrate
