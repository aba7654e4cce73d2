#pragma once

#include "serrate/kernels/invalid_ids.h"
#include "serrate/sharded_embedding.h"

namespace serrate {

/// `bags`, or what the policy makes of them, in `valid`. Adds the number of invalid ids to `count`.
JaggedView check_ids(const JaggedView& bags, const std::string& feature,
                     const EmbeddingTable& table, InvalidIds policy, ValidIds& valid,
                     std::int64_t& count, const Stream& stream);

}  // namespace serrate
