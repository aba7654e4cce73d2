#include "sharding/planner/infeasible.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "sharding/files/quantity.h"

namespace serrate {
namespace {

std::string format_sum(double bytes) {
  return format_bytes(static_cast<std::int64_t>(bytes));
}

// "table "a"" or "group "g" (tables "a", "b", ...)", for error messages.
std::string name_of(const PlannerItem& item, const PlannerModel& model) {
  constexpr std::size_t kShown = 5;
  const PlannerTable& first = model.tables[item.tables.front()];
  if (item.tables.size() == 1) return fmt::format("table \"{}\"", first.name);
  std::string names;
  for (std::size_t i = 0; i < std::min(kShown, item.tables.size()); ++i) {
    names += fmt::format("{}\"{}\"", i ? ", " : "", model.tables[item.tables[i]].name);
  }
  return fmt::format("group \"{}\" (tables {}{})", first.group, names,
                     item.tables.size() > kShown ? ", ..." : "");
}

// The items that need the most of something, largest first: "table "a" (12.3 GiB), ...".
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
    text += fmt::format("{}{} ({})", i ? ", " : "", name_of(problem.items[order[i]], model),
                        format_sum(bytes[order[i]]));
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
    const std::string needed =
        format_bytes(on_device ? least->max_device_bytes() : least->max_host_bytes());
    const bool one_rank = least->num_blocks * least->ranks_per_block == 1;
    return fmt::format(
        "{} does not fit: the smallest shards it can have ({}, {}) need {} of {} memory on a rank, "
        "and no rank has more than {} for tables, after what is reserved and the dense parameters "
        "(give {} {} for tables, or allow another sharding type or kernel)",
        name_of(item, model), to_string(least->type), to_string(least->kernel), needed,
        on_device ? "device" : "host", format_bytes(on_device ? device : host),
        one_rank ? "a rank" : "each of its ranks", needed);
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
      "the tables do not fit: in the smallest sharding of each they need {} of device and {} "
      "of host memory, and the {} ranks have {} and {} for tables; the largest are {}",
      format_sum(needed_device), format_sum(needed_host), world_size, format_sum(device),
      format_sum(host), largest(problem, model, bytes));
  if (share >= 1) {
    text += fmt::format(
        " (give tables {} of each rank instead of {}, use at least {:.0f} ranks, or allow kernels "
        "that keep rows in host memory)",
        format_sum(needed_device / world_size), format_sum(device / world_size),
        std::ceil(needed * world_size));
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

std::string describe_misfit(const PlannerProblem& problem, const Misfit& misfit,
                            const PlannerModel& model) {
  const PlannerItem& item = problem.items[misfit.item];
  const auto bytes = [](const Candidate& c) { return c.max_device_bytes() + c.max_host_bytes(); };
  const Candidate& least = *std::ranges::min_element(item.candidates, {}, bytes);
  return fmt::format(
      "{} does not fit: the smallest shards it can have ({}, {}) need {} of device and {} of host "
      "memory on a rank, beside {} and {} of the tables that have to be on every rank as they fit "
      "no other way (give ranks more memory, or allow other sharding types or kernels)",
      name_of(item, model), to_string(least.type), to_string(least.kernel),
      format_bytes(least.max_device_bytes()), format_bytes(least.max_host_bytes()),
      format_bytes(misfit.device_bytes), format_bytes(misfit.host_bytes));
}

}  // namespace serrate
