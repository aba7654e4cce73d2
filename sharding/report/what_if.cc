#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>

#include "serrate/error.h"
#include "serrate/planner_report.h"
#include "sharding/files/quantity.h"

namespace serrate {
namespace {

std::int64_t count_from(const std::string& value, std::int64_t most) {
  std::int64_t count = 0;
  const char* const end = value.data() + value.size();
  const auto [rest, error] = std::from_chars(value.data(), end, count);
  if (error != std::errc() || rest != end || count < 1 || count > most) {
    throw usage_error(fmt::format("\"{}\" is not a whole number from 1 to {}", value, most));
  }
  return count;
}

double share_from(const std::string& value) {
  double share = 0;
  const char* const end = value.data() + value.size();
  const auto [rest, error] = std::from_chars(value.data(), end, share);
  if (error != std::errc() || rest != end || !(share >= 0 && share < 1)) {
    throw usage_error(fmt::format("\"{}\" is not a share, from 0 to less than 1", value));
  }
  return share;
}

void set_world_size(int world_size, PlannerTopology& t) {
  const auto differ = [](const std::vector<std::int64_t>& bytes) {
    return std::adjacent_find(bytes.begin(), bytes.end(), std::not_equal_to<>()) != bytes.end();
  };
  if (differ(t.device_bytes) || differ(t.host_bytes)) {
    throw usage_error("ranks do not have the same memory (give a topology file of that size)");
  }
  t.world_size = world_size;
  t.device_bytes.assign(world_size, t.device_bytes.front());
  t.host_bytes.assign(world_size, t.host_bytes.front());
}

struct WhatIfFigure {
  const char* name;
  double PlannerTopology::* figure;
  double (*read)(const std::string&);
};
constexpr WhatIfFigure kFigures[] = {
    {"reserve", &PlannerTopology::reserve, share_from},
    {"device_bandwidth", &PlannerTopology::device_bandwidth, bandwidth_from_string},
    {"host_bandwidth", &PlannerTopology::host_bandwidth, bandwidth_from_string},
    {"link_bandwidth", &PlannerTopology::host_link_bandwidth, bandwidth_from_string},
    {"intra_bandwidth", &PlannerTopology::intra_node_bandwidth, bandwidth_from_string},
    {"inter_bandwidth", &PlannerTopology::inter_node_bandwidth, bandwidth_from_string},
    {"intra_latency", &PlannerTopology::intra_node_latency, latency_from_string},
    {"inter_latency", &PlannerTopology::inter_node_latency, latency_from_string},
};

bool apply(const std::string& name, const std::string& value, PlannerModel& model,
           PlannerTopology& t) {
  if (name == "hbm") {
    if (t.device == PlannerDevice::kCpu) throw usage_error("a cpu topology has none");
    t.device_bytes.assign(t.world_size, bytes_from_string(value));
  } else if (name == "ddr") {
    t.host_bytes.assign(t.world_size, bytes_from_string(value));
  } else if (name == "ranks") {
    set_world_size(static_cast<int>(count_from(value, kMostPlannedRanks)), t);
  } else if (name == "ranks_per_node") {
    t.ranks_per_node = static_cast<int>(count_from(value, kMostPlannedRanks));
  } else if (name == "batch_size") {
    model.batch_size = count_from(value, std::int64_t{1} << 40);
  } else {
    for (const WhatIfFigure& known : kFigures) {
      if (name != known.name) continue;
      t.*known.figure = known.read(value);
      return true;
    }
    return false;
  }
  return true;
}

}  // namespace

void apply_what_if(const std::string& change, PlannerModel& model, PlannerTopology& topology) {
  const auto equals = change.find('=');
  const std::string name = change.substr(0, equals);
  const std::string value = equals == std::string::npos ? "" : change.substr(equals + 1);
  bool known = false;
  try {
    known = apply(name, value, model, topology);
  } catch (const Error& error) {
    throw usage_error(fmt::format("what if {}: {}", change, error.what()));
  }
  if (!known) {
    std::string names = "hbm, ddr, ranks, ranks_per_node, batch_size";
    for (const WhatIfFigure& figure : kFigures) names += fmt::format(", {}", figure.name);
    throw usage_error(fmt::format("what if {}: there is no \"{}\" to change (there are: {})",
                                  change, name, names));
  }
}

}  // namespace serrate
