#include "sharding/planner_bound.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

namespace serrate {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// Sums of many doubles are compared with this slack, to the side on which the bound stays true.
constexpr double kSlack = 1e-11;

double sum_of(const std::vector<std::int64_t>& bytes) {
  return std::accumulate(bytes.begin(), bytes.end(), 0.0);
}

// What a candidate takes: time on each of its ranks, memory as parts of all ranks' together.
struct Demand {
  double time = 0;    // of the longest shard
  double work = 0;    // of all shards
  double shards = 1;  // as long as the longest
  double device = 0;
  double host = 0;
};

// Relaxes the placement: load and memory may be spread freely over the ranks, but no rank may have
// a shard that alone is longer than the time limit. Memory is a price per byte (Lagrange), so every
// price gives a bound; the best is searched for.
class Relaxation {
 public:
  explicit Relaxation(const PlannerProblem& problem) : num_ranks_(problem.world_size) {
    const double device = std::max(1.0, sum_of(problem.device_bytes));
    const double host = std::max(1.0, sum_of(problem.host_bytes));
    const std::int64_t most_device = *std::ranges::max_element(problem.device_bytes);
    const std::int64_t most_host = *std::ranges::max_element(problem.host_bytes);
    for (const PlannerItem& item : problem.items) {
      for (const Candidate& c : item.candidates) {
        if (c.max_device_bytes() > most_device || c.max_host_bytes() > most_host) continue;
        demands_.push_back({c.time.total(problem.estimator), c.work.total(problem.estimator),
                            static_cast<double>(c.num_blocks) * c.full_ranks,
                            static_cast<double>(c.total_device_bytes()) / device,
                            static_cast<double>(c.total_host_bytes()) / host});
      }
      item_ends_.push_back(demands_.size());
    }
  }

  struct Prices {
    double device = 0;
    double host = 0;
  };
  struct Sum {
    double value = 0;  // work and priced memory, less the memory there is
    double device = 0;
    double host = 0;
  };

  // The cheapest candidate of each item at these prices. `filled` says how many ranks of `limit` a
  // demand fills.
  template <typename Filled>
  Sum cheapest(double limit, Prices prices, const Filled& filled) const {
    Sum sum{.value = -prices.device - prices.host};
    std::size_t c = 0;
    for (const std::size_t end : item_ends_) {
      double best = kInfinity;
      const Demand* chosen = nullptr;
      for (; c < end; ++c) {
        const Demand& d = demands_[c];
        if (d.time > limit * (1 + kSlack)) continue;
        const double cost = filled(d) + prices.device * d.device + prices.host * d.host;
        if (cost < best) {
          best = cost;
          chosen = &d;
        }
      }
      if (!chosen) return {.value = kInfinity};
      sum.value += best;
      sum.device += chosen->device;
      sum.host += chosen->host;
    }
    return sum;
  }

  // Ranks filled, at least, when no rank may exceed `limit`; more than there are proves that no
  // placement keeps the limit. The prices found are left in `prices`, and begin there.
  double ranks_needed(double limit, Prices& prices) const {
    const auto spread = [limit](const Demand& d) { return d.work / limit; };
    Sum best = cheapest(limit, {}, spread);
    if (best.value == kInfinity || (best.device <= 1 && best.host <= 1)) {
      prices = {};
      return best.value;
    }
    double value = best.value;
    for (int round = 0; round < 3; ++round) {
      for (double Prices::* price : {&Prices::device, &Prices::host}) {
        const auto used = price == &Prices::device ? &Sum::device : &Sum::host;
        double low = 0;
        double high = std::max(1.0, prices.*price);
        const auto try_price = [&](double p) {
          prices.*price = p;
          const Sum sum = cheapest(limit, prices, spread);
          value = std::max(value, sum.value);
          return sum.*used > 1;  // too cheap
        };
        if (!try_price(0)) continue;
        while (try_price(high) && high < 1e12 && value <= num_ranks_) high *= 4;
        for (int i = 0; i < 30 && high - low > 1e-6 * high; ++i) {
          const double middle = (low + high) / 2;
          (try_price(middle) ? low : high) = middle;
        }
        prices.*price = high;
      }
    }
    return value;
  }

  // As ranks_needed, by dual feasible functions (Fekete and Schepers 2001): they round parts so
  // that what fits a rank still does, and see that parts of more than half do not share one. The
  // shorter shards of a demand are left out.
  bool packing_exceeds(double limit, Prices prices) const {
    const auto exceeds = [&](const auto& weight) {
      const auto packed = [&](const Demand& d) { return d.shards * weight(d.time / limit); };
      for (const Prices& p : {Prices{}, prices}) {
        if (cheapest(limit, p, packed).value > num_ranks_ * (1 + kSlack)) return true;
      }
      return false;
    };
    for (int k = 1; k <= 12; ++k) {
      const auto rounded = [k](double part) {
        return std::min(part, 1.0) >= 1 - kSlack ? 1.0
                                                 : std::floor((k + 1) * part * (1 - kSlack)) / k;
      };
      if (exceeds(rounded)) return true;
    }
    for (int i = 1; i < 20; ++i) {
      const double small = i / 40.0;
      const auto thresholded = [small](double part) {
        if (part > 1 - small + kSlack) return 1.0;
        return part < small ? 0.0 : part;
      };
      if (exceeds(thresholded)) return true;
    }
    return false;
  }

  double num_ranks() const { return num_ranks_; }
  double total_time_unlimited() const {
    return cheapest(kInfinity, {}, [](const Demand& d) { return d.work; }).value;
  }

 private:
  double num_ranks_;
  std::vector<Demand> demands_;
  std::vector<std::size_t> item_ends_;
};

double gib(double bytes) {
  return bytes / (1 << 30);
}

// The items that need the most of something, largest first: "a (12.3 GiB), b (...)".
std::string largest(const PlannerProblem& problem, const PlannerModel& model,
                    const std::vector<double>& bytes) {
  std::vector<std::size_t> order(bytes.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  constexpr std::size_t kShown = 5;
  const std::size_t shown = std::min(kShown, order.size());
  std::partial_sort(order.begin(), order.begin() + shown, order.end(),
                    [&](std::size_t a, std::size_t b) {
                      return bytes[a] != bytes[b] ? bytes[a] > bytes[b] : a < b;
                    });
  std::string text;
  for (std::size_t i = 0; i < shown; ++i) {
    text += fmt::format("{}\"{}\" ({:.2f} GiB)", i ? ", " : "",
                        model.tables[problem.items[order[i]].tables.front()].name,
                        gib(bytes[order[i]]));
  }
  return text;
}

// A table with no sharding whose largest shard fits any rank.
std::string prove_table_too_large(const PlannerProblem& problem, const PlannerModel& model) {
  const std::int64_t device = *std::ranges::max_element(problem.device_bytes);
  const std::int64_t host = *std::ranges::max_element(problem.host_bytes);
  for (const PlannerItem& item : problem.items) {
    const auto over = [&](const Candidate& c) {
      return std::max(c.max_device_bytes() - device, c.max_host_bytes() - host);
    };
    const auto least = std::ranges::min_element(item.candidates, {}, over);
    if (over(*least) <= 0) continue;
    const bool on_device = least->max_device_bytes() > device;
    return fmt::format(
        "table \"{}\" does not fit: its smallest shards ({}, {}) need {:.3f} GiB of {} memory on a "
        "rank, and no rank has more than {:.3f} GiB (give a rank {:.3f} GiB, or allow another "
        "sharding type or kernel)",
        model.tables[item.tables.front()].name, to_string(least->type), to_string(least->kernel),
        gib(static_cast<double>(on_device ? least->max_device_bytes() : least->max_host_bytes())),
        on_device ? "device" : "host", gib(static_cast<double>(on_device ? device : host)),
        gib(static_cast<double>(on_device ? least->max_device_bytes() : least->max_host_bytes())));
  }
  return {};
}

// All tables together, when a byte of device memory counts `share` and one of host memory the rest.
std::string prove_sum_too_large(const PlannerProblem& problem, const PlannerModel& model,
                                double share) {
  const double device = sum_of(problem.device_bytes);
  const double host = sum_of(problem.host_bytes);
  double needed = 0, needed_device = 0, needed_host = 0;
  std::vector<double> bytes;
  for (const PlannerItem& item : problem.items) {
    const auto part = [&](const Candidate& c) {
      const auto of = [](double need, double have) {
        return need > 0 ? need / std::max(have, 1.0) : 0;
      };
      return share * of(static_cast<double>(c.total_device_bytes()), device) +
             (1 - share) * of(static_cast<double>(c.total_host_bytes()), host);
    };
    const Candidate& least = *std::ranges::min_element(item.candidates, {}, part);
    needed += part(least);
    needed_device += static_cast<double>(least.total_device_bytes());
    needed_host += static_cast<double>(least.total_host_bytes());
    bytes.push_back(static_cast<double>(least.total_device_bytes() + least.total_host_bytes()));
  }
  if (needed <= 1 + kSlack) return {};
  const int world_size = problem.world_size;
  std::string text = fmt::format(
      "the tables do not fit: in the smallest sharding of each they need {:.2f} GiB of device and "
      "{:.2f} GiB of host memory, and the {} ranks have {:.2f} and {:.2f} GiB; the largest are {}",
      gib(needed_device), gib(needed_host), world_size, gib(device), gib(host),
      largest(problem, model, bytes));
  if (share >= 1) {
    text += fmt::format(
        " (give each rank {:.2f} GiB instead of {:.2f}, use at least {:.0f} ranks, or allow "
        "kernels that keep rows in host memory)",
        gib(needed_device / world_size), gib(device / world_size), std::ceil(needed * world_size));
  } else {
    text += fmt::format(" (at least {:.0f} such ranks are needed)", std::ceil(needed * world_size));
  }
  return text;
}

}  // namespace

PlannerBound planner_bound(const PlannerProblem& problem) {
  const Relaxation relaxation(problem);
  const double ranks = relaxation.num_ranks();
  PlannerBound bound;
  Relaxation::Prices prices;
  const double average = relaxation.total_time_unlimited() / ranks;
  if (average == kInfinity) return {.max_rank = kInfinity};
  const auto exceeds = [&](double limit) {
    return relaxation.ranks_needed(limit, prices) > ranks * (1 + kSlack);
  };
  double low = average * (1 - 1e-9);  // proved
  double high = std::max(average, 1e-12);
  int doublings = 0;
  while (exceeds(high)) {
    low = high;
    high *= 1.5;
    if (++doublings > 200) return {.max_rank = kInfinity};
  }
  while (high - low > 1e-6 * high) {
    const double middle = (low + high) / 2;
    (exceeds(middle) ? low : high) = middle;
  }
  exceeds(high);  // leaves the prices of the bound
  bound.device_price = prices.device * high / std::max(1.0, sum_of(problem.device_bytes));
  bound.host_price = prices.host * high / std::max(1.0, sum_of(problem.host_bytes));

  for (double step = 0.25; step > 1e-4; step /= 2) {
    while (relaxation.packing_exceeds(low * (1 + step), prices)) low *= 1 + step;
  }
  bound.max_rank = low;
  return bound;
}

std::string prove_infeasible(const PlannerProblem& problem, const PlannerModel& model) {
  if (std::string why = prove_table_too_large(problem, model); !why.empty()) return why;
  for (const double share : {1.0, 0.0, 0.5, 0.25, 0.75, 0.1, 0.9}) {
    if (std::string why = prove_sum_too_large(problem, model, share); !why.empty()) return why;
  }
  return {};
}

}  // namespace serrate
