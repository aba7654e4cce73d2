#include "sharding/estimate/lookups.h"

#include <algorithm>
#include <cmath>

namespace serrate {
namespace {

double bags_of(const PlannerFeature& f, std::int64_t batch_size) {
  return f.num_poolings * static_cast<double>(f.batch_size > 0 ? f.batch_size : batch_size);
}

}  // namespace

Lookups count_lookups(const PlannerTable& table, std::int64_t batch_size, double share) {
  Lookups n;
  for (const PlannerFeature& f : table.features) {
    const double bags = bags_of(f, batch_size);
    const double ids = f.pooling_factor * bags * share;
    // All of a bag's n ids are elsewhere with a probability of (1 - share)^n.
    const double found = bags * (1 - std::pow(1 - share, f.pooling_factor));
    n.ids += ids;
    n.bags += table.pooled ? std::min(ids, found) : ids;
  }
  return n;
}

double room_for_bags(const PlannerTable& table, std::int64_t batch_size, double num_blocks) {
  double room = 0;
  for (const PlannerFeature& f : table.features) {
    const double bags = bags_of(f, batch_size), ids = f.pooling_factor * bags;
    room += table.pooled ? std::min(ids, bags * num_blocks) : ids;
  }
  return room;
}

double count_bags(const PlannerTable& table, std::int64_t batch_size) {
  double bags = 0;
  for (const PlannerFeature& f : table.features) {
    bags += bags_of(f, batch_size) * (table.pooled ? 1 : f.pooling_factor);
  }
  return bags;
}

}  // namespace serrate
