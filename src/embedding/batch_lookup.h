#pragma once

#include <cstdint>

#include "serrate/buffer.h"

namespace serrate {

/// One lookup of a batch, on the rank that has the bags or passes them on within its node.
struct BatchLookup {
  std::int64_t num_bags = 0;
  std::int64_t dim = 0;
  std::int64_t output_at = 0;          ///< its [num_bags, dim] in the outputs, or in those it is
                                       ///< passed on for
  std::int64_t first_block = 0;        ///< its row blocks among those of the parted ids
  std::int64_t first_owner_block = 0;  ///< the owners' row blocks there, if it goes through nodes
  Buffer<float> mean_scales;           ///< [num_bags]; empty for sum pooling

  /// The bags of an unpooled lookup (see LookupRoute), which is parted as a bag for each id.
  std::int64_t num_ids = 0;
  std::int64_t unpooled_at = 0;      ///< its [num_ids, dim] in the unpooled rows
  Buffer<std::int64_t> bag_offsets;  ///< [num_bags + 1]
  Buffer<std::int64_t> bag_of_id;    ///< [num_ids]
  Buffer<float> id_weights;          ///< [num_ids], or empty

  DeviceMatrix<float> matrix(Buffer<float>& outputs) const {
    return {outputs.device_data() + output_at, num_bags, dim};
  }
  DeviceMatrix<float> unpooled(Buffer<float>& rows) const {
    return {rows.device_data() + unpooled_at, num_ids, dim};
  }
  std::int64_t bytes() const {
    return mean_scales.bytes() + bag_offsets.bytes() + bag_of_id.bytes() + id_weights.bytes();
  }
};

}  // namespace serrate
