#include "sharding/planner/relaxation.h"

namespace serrate {

Box Relaxation::whole() const {
  Box box;
  box.high.fill(kUnbounded);
  box.allowed = canonical_;
  for (std::size_t j = 0; j < rows_.size(); ++j) {
    box.prices[j] = rows_[j].load < kPhases ? 1.0 / num_groups_ : 0;
  }
  return box;
}

double Relaxation::price(const Box& box, int load) const {
  double sum = 0;
  for (std::size_t j = 0; j < rows_.size(); ++j) {
    if (rows_[j].load == load) sum += box.prices[j];
  }
  return sum / num_groups_;
}

double Relaxation::least_uniform(const Box& box) const {
  double sum = 0;
  std::size_t i = 0;
  for (const std::size_t end : all_.item_ends) {
    double least = kUnbounded;
    for (; i < end; ++i) {
      if (box.allowed[i]) least = std::min(least, all_.demands[i].uniform);
    }
    sum += least;
  }
  return sum;
}

Choices Relaxation::choices_in(const Box& box, const Room& room) const {
  Choices some;
  some.demands.reserve(all_.demands.size());
  some.names.reserve(all_.demands.size());
  some.item_ends.reserve(all_.item_ends.size());
  std::size_t i = 0;
  for (const std::size_t end : all_.item_ends) {
    for (; i < end; ++i) {
      if (!box.allowed[i]) continue;
      Demand& d = some.demands.emplace_back(all_.demands[i]);
      some.names.push_back(i);
      for (std::size_t c = 0; c < box.cuts.size(); ++c) {
        d.mean[rows_.size() + c] = mean_of(d, room, box.cuts[c]);
      }
    }
    some.item_ends.push_back(some.demands.size());
  }
  some.chosen.assign(some.demands.size(), 0.0);
  return some;
}

// Takes out the demands with shards that are longer, or larger, than what is left of a rank beside
// what is on all ranks of its group. False when there are none.
bool Relaxation::take_out_long(Box& box, const Room& room) const {
  constexpr double kSlack = 1e-9;
  bool found = false;
  for (std::size_t i = 0; i < all_.demands.size(); ++i) {
    if (!box.allowed[i]) continue;
    const Demand& d = all_.demands[i];
    bool fits = true;
    for (int k = 0; k < kPhases; ++k) fits &= d.longest[k] <= box.high[k] * (1 + kBoundSlack);
    for (std::size_t p = d.first_part; p < d.end_part && fits; ++p) {
      const Part& part = parts_[p];
      for (int k = 0; k < kLoads; ++k) {
        const double most = room.left[part.group][k] + room.surely[d.item][part.group][k];
        const double slack = kSlack * (k < kPhases ? box.high[k] : 1);
        fits &= part.takes[k] == 0 || part.takes[k] <= most + slack;
      }
    }
    if (fits) continue;
    box.allowed[i] = false;
    found = true;
  }
  return found;
}

// Takes out the demands that are too long for the box or do not fit it. False when an item is left
// with none: nothing in the box is below `known`.
bool Relaxation::take_out(Box& box, double known) const {
  const auto empty = [&] {
    box.value = std::max(box.value, known);
    return false;
  };
  for (bool found = true; found;) {
    found = take_out_long(box, room_in(box));
    Allowed allowed;
    for (const PlannerItem& item : problem_.items) {
      allowed.emplace_back(item.candidates.size(), false);
    }
    for (std::size_t i = 0; i < all_.demands.size(); ++i) {
      if (box.allowed[i]) allowed[all_.demands[i].item][all_.demands[i].candidate] = true;
    }
    for (const auto& of_item : allowed) {
      if (std::ranges::find(of_item, true) == of_item.end()) return empty();
    }
    if (take_out_misfits(problem_, allowed)) return empty();
    for (std::size_t i = 0; i < all_.demands.size(); ++i) {
      if (!box.allowed[i] || allowed[all_.demands[i].item][all_.demands[i].candidate]) continue;
      box.allowed[i] = false;
      found = true;
    }
  }
  return true;
}

// Takes out the demands with which nothing in the box is below `known`, at the best prices.
bool Relaxation::price_out(Box& box, const Choices& choices, double known) const {
  bool found = false;
  std::size_t begin = 0;
  const std::vector<double> costs = choices.costs(box.prices, num_rows(box));
  for (const std::size_t end : choices.item_ends) {
    double least = kUnbounded;
    for (std::size_t i = begin; i < end; ++i) least = std::min(least, costs[i]);
    for (std::size_t i = begin; i < end; ++i) {
      if (box.proved + costs[i] - least <= known * (1 + kBoundSlack)) continue;
      box.allowed[choices.names[i]] = false;
      found = true;
    }
    begin = end;
  }
  return found;
}

}  // namespace serrate
