#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "serrate/planner.h"
#include "sharding/files/quantity.h"
#include "src/core/json.h"

namespace serrate {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::int64_t kTopologyVersion = 1;

// TorchRec's defaults (planner/constants.py).
constexpr std::int64_t kDeviceBytes = std::int64_t{32} << 30;
constexpr std::int64_t kHostBytes = std::int64_t{128} << 30;
constexpr double kReserve = 0.15;

std::int64_t bytes_from(const JsonField& field) {
  if (!field.is_string()) return field.int64(0, kMostPlannedBytes);
  const std::int64_t bytes = field.string_as(bytes_from_string);
  if (bytes > kMostPlannedBytes)
    field.fail(fmt::format("must be at most 2^53 bytes (got {})", bytes));
  return bytes;
}

double bandwidth_from(const JsonField& field) {
  if (field.is_string()) return field.string_as(bandwidth_from_string);
  const double per_second = field.number();
  if (!(per_second >= kLeastBandwidth && per_second <= kMostBandwidth)) {
    field.fail(fmt::format("must be between {} and {} bytes per second (got {})", kLeastBandwidth,
                           kMostBandwidth, per_second));
  }
  return per_second / 1e3;
}

double latency_from(const JsonField& field) {
  return field.string_as(latency_from_string);
}

struct NamedFigure {
  const char* name;
  double PlannerTopology::* value;
};
constexpr NamedFigure kBandwidths[] = {
    {"device_bandwidth", &PlannerTopology::device_bandwidth},
    {"host_bandwidth", &PlannerTopology::host_bandwidth},
    {"host_link_bandwidth", &PlannerTopology::host_link_bandwidth},
    {"intra_node_bandwidth", &PlannerTopology::intra_node_bandwidth},
    {"inter_node_bandwidth", &PlannerTopology::inter_node_bandwidth},
    {"lookup_bandwidth", &PlannerTopology::lookup_bandwidth},
    {"update_bandwidth", &PlannerTopology::update_bandwidth},
};
constexpr NamedFigure kLatencies[] = {
    {"intra_node_latency", &PlannerTopology::intra_node_latency},
    {"inter_node_latency", &PlannerTopology::inter_node_latency},
};

PlannerDevice device_from(const JsonField& field) {
  const std::string name = field.string();
  if (name == "cuda") return PlannerDevice::kCuda;
  if (name != "cpu") field.fail(fmt::format("\"{}\" is not a device (cuda or cpu)", name));
  return PlannerDevice::kCpu;
}

// The ranks that have an override already, [world_size].
struct Overridden {
  std::vector<bool> device, host;
};

// Memory of single ranks, where it is not that of the others.
void read_override(const JsonField& field, Overridden& done, PlannerTopology& t) {
  field.allow_only({"ranks", "device_memory", "host_memory"});
  const auto device = field.find("device_memory"), host = field.find("host_memory");
  if (!device && !host) field.fail("must have a device_memory or a host_memory");
  if (device && t.device == PlannerDevice::kCpu) device->fail("is not a cpu's (leave it out)");
  const JsonField ranks = field.at("ranks");
  if (ranks.array().empty()) ranks.fail("must not be empty");
  for (const JsonField& rank : ranks.array()) {
    const auto r = static_cast<std::size_t>(rank.int64(0, t.world_size - 1));
    if ((device && done.device[r]) || (host && done.host[r])) {
      rank.fail(fmt::format("rank {} has an override already", r));
    }
    if (device) t.device_bytes[r] = bytes_from(*device);
    if (host) t.host_bytes[r] = bytes_from(*host);
    done.device[r] = done.device[r] || device;
    done.host[r] = done.host[r] || host;
  }
}

// The amount that most ranks have, the larger one of several.
std::int64_t most_common(const std::vector<std::int64_t>& bytes) {
  std::map<std::int64_t, std::int64_t> counts;
  for (const std::int64_t b : bytes) ++counts[b];
  return std::ranges::max_element(
             counts, {}, [](const auto& entry) { return std::pair(entry.second, entry.first); })
      ->first;
}

// Ranks whose memory differs from the most common one, by what they have.
Json overrides_of(const PlannerTopology& t, std::int64_t device, std::int64_t host) {
  std::map<std::pair<std::int64_t, std::int64_t>, std::vector<int>> ranks;
  for (int rank = 0; rank < t.world_size; ++rank) {
    if (t.device_bytes[rank] != device || t.host_bytes[rank] != host) {
      ranks[{t.device_bytes[rank], t.host_bytes[rank]}].push_back(rank);
    }
  }
  Json overrides = Json::array();
  for (const auto& [memory, of_ranks] : ranks) {
    Json entry{{"ranks", of_ranks}};
    if (memory.first != device) entry["device_memory"] = memory.first;
    if (memory.second != host) entry["host_memory"] = memory.second;
    overrides.push_back(std::move(entry));
  }
  return overrides;
}

// 15 digits: what is read back is written the same.
double per_second(double per_ms) {
  return std::stod(fmt::format("{:.15g}", per_ms * 1e3));
}

}  // namespace

PlannerTopology planner_topology_from_json(const std::string& json) {
  const auto document = parse_json(json, "planner topology");
  const JsonField root(document, "planner topology");
  root.allow_only({"version", "device", "world_size", "ranks_per_node", "device_memory",
                   "host_memory", "reserve", "device_bandwidth", "host_bandwidth",
                   "host_link_bandwidth", "intra_node_bandwidth", "inter_node_bandwidth",
                   "lookup_bandwidth", "update_bandwidth", "intra_node_latency",
                   "inter_node_latency", "overrides"});
  root.at("version").int64(kTopologyVersion, kTopologyVersion);
  PlannerTopology t;
  if (const auto device = root.find("device")) t.device = device_from(*device);
  t.world_size = static_cast<int>(root.at("world_size").int64(1, kMostPlannedRanks));
  const JsonField per_node = root.at("ranks_per_node");
  t.ranks_per_node = static_cast<int>(per_node.int64(1, t.world_size));
  if (t.world_size % t.ranks_per_node != 0) {
    per_node.fail(
        fmt::format("must divide world_size ({} ranks, got {})", t.world_size, t.ranks_per_node));
  }
  const bool has_devices = t.device == PlannerDevice::kCuda;
  t.device_bytes.assign(t.world_size, has_devices ? kDeviceBytes : 0);
  t.host_bytes.assign(t.world_size, kHostBytes);
  if (const auto memory = root.find("device_memory")) {
    if (!has_devices) memory->fail("is not a cpu's (leave it out)");
    t.device_bytes.assign(t.world_size, bytes_from(*memory));
  }
  if (const auto memory = root.find("host_memory")) {
    t.host_bytes.assign(t.world_size, bytes_from(*memory));
  }
  t.reserve = kReserve;
  if (const auto reserve = root.find("reserve")) {
    t.reserve = reserve->number();
    if (!(t.reserve >= 0 && t.reserve < 1)) {
      reserve->fail(fmt::format("must be a share, from 0 to less than 1 (got {})", t.reserve));
    }
  }
  for (const auto& [name, value] : kBandwidths) {
    if (const auto field = root.find(name)) t.*value = bandwidth_from(*field);
  }
  for (const auto& [name, value] : kLatencies) {
    if (const auto field = root.find(name)) t.*value = latency_from(*field);
  }
  if (const auto overrides = root.find("overrides")) {
    Overridden done{std::vector<bool>(t.world_size), std::vector<bool>(t.world_size)};
    for (const JsonField& entry : overrides->array()) read_override(entry, done, t);
  }
  return t;
}

std::string planner_topology_to_json(const PlannerTopology& t) {
  const bool has_devices = t.device == PlannerDevice::kCuda;
  const std::int64_t device = most_common(t.device_bytes), host = most_common(t.host_bytes);
  Json json{{"version", kTopologyVersion},
            {"device", has_devices ? "cuda" : "cpu"},
            {"world_size", t.world_size},
            {"ranks_per_node", t.ranks_per_node}};
  if (has_devices) json["device_memory"] = device;
  json["host_memory"] = host;
  json["reserve"] = t.reserve;
  for (const auto& [name, value] : kBandwidths) {
    if (t.*value > 0) json[name] = per_second(t.*value);  // 0: left to its default
  }
  for (const auto& [name, value] : kLatencies)
    json[name] = fmt::format("{:.15g}us", t.*value * 1e3);
  if (Json overrides = overrides_of(t, device, host); !overrides.empty()) {
    json["overrides"] = std::move(overrides);
  }
  return json.dump(2) + "\n";
}

}  // namespace serrate
