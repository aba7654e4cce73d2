#include "sharding/planner_infeasible.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace serrate {
namespace {

double sum_of(const std::vector<std::int64_t>& bytes) {
  return std::accumulate(bytes.begin(), bytes.end(), 0.0);
}

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
        "rank, and no rank has more than {:.3f} GiB for tables (give a rank {:.3f} GiB, or allow "
        "another sharding type or kernel)",
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
  if (needed <= 1 + 1e-11) return {};
  const int world_size = problem.world_size;
  std::string text = fmt::format(
      "the tables do not fit: in the smallest sharding of each they need {:.2f} GiB of device and "
      "{:.2f} GiB of host memory, and the {} ranks have {:.2f} and {:.2f} GiB for tables; the "
      "largest are {}",
      gib(needed_device), gib(needed_host), world_size, gib(device), gib(host),
      largest(problem, model, bytes));
  if (share >= 1) {
    text += fmt::format(
        " (give tables {:.2f} GiB of each rank instead of {:.2f}, use at least {:.0f} ranks, or "
        "allow "
        "kernels that keep rows in host memory)",
        gib(needed_device / world_size), gib(device / world_size), std::ceil(needed * world_size));
  } else {
    text += fmt::format(" (at least {:.0f} such ranks are needed)", std::ceil(needed * world_size));
  }
  return text;
}

}  // namespace

std::string prove_infeasible(const PlannerProblem& problem, const PlannerModel& model) {
  if (std::string why = prove_table_too_large(problem, model); !why.empty()) return why;
  for (const double share : {1.0, 0.0, 0.5, 0.25, 0.75, 0.1, 0.9}) {
    if (std::string why = prove_sum_too_large(problem, model, share); !why.empty()) return why;
  }
  return {};
}

}  // namespace serrate
