#pragma once

#include "serrate/planner.h"

namespace serrate {

/// What one rank's batch looks up in a part of a table's rows, on average.
struct Lookups {
  double ids = 0;
  double bags = 0;  // that have an id there
  friend Lookups operator*(const Lookups& n, double times) {
    return {n.ids * times, n.bags * times};
  }
};

/// `share`: the part of the ids that is there; bags have as many ids each as the features say.
Lookups count_lookups(const PlannerTable& table, std::int64_t batch_size, double share);

/// Room for those bags in `num_blocks` row blocks: a bag may have ids in each.
double room_for_bags(const PlannerTable& table, std::int64_t batch_size, double num_blocks);

/// All bags of one rank's batch, with ids or without: rows of the outputs.
double count_bags(const PlannerTable& table, std::int64_t batch_size);

}  // namespace serrate
