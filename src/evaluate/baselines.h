#pragma once

#include <cstdint>
#include <vector>

#include "src/data/dataset.h"
#include "src/data/split.h"

namespace serrate {

/// Whether items of a user's history take part in the ranking. A target that is filtered out has
/// the rank kNotRanked.
enum class SeenItems { kKeep, kFilter };

/// The rank of the target of every case, from 1 (see ranking_metrics.h), by simple counts. Counted
/// are the histories of the evaluated users, without ids that are no items; ties go to what comes
/// first in them, user after user.
struct BaselineRanks {
  std::vector<std::int64_t> popularity;  ///< by the number of events of an item
  std::vector<std::int64_t> repeat;      ///< by their number in the user's own history; items that
                                         ///< are not in it are not ranked
  std::vector<std::int64_t> markov;      ///< by how often an item came right after the last item of
                                         ///< the history; behind those, the others by popularity
};

/// What rank_baselines() holds at its most, beside a chunk of the dataset.
std::int64_t baseline_bytes(const Dataset& dataset, const Split& split);

BaselineRanks rank_baselines(const Dataset& dataset, const Split& split,
                             SeenItems seen = SeenItems::kKeep,
                             UnknownIds unknown_ids = UnknownIds::kError);

}  // namespace serrate
