#include "sharding/planner/check_input.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <string>

#include "serrate/error.h"

namespace serrate {
namespace {

constexpr std::int64_t kWordBytes = 8;

void check_table(const PlannerTable& table, int world_size) {
  const auto fail = [&](const std::string& problem) {
    throw usage_error(fmt::format("planner: table \"{}\": {}", table.name, problem));
  };
  const auto at_least = [&](const char* field, auto value, auto least) {
    if (!(value >= least)) {
      fail(fmt::format("{}: must be at least {} (got {})", field, least, value));
    }
  };
  at_least("num_rows", table.num_rows, std::int64_t{1});
  at_least("dim", table.dim, std::int64_t{1});
  at_least("bytes_per_element", table.bytes_per_element, std::int64_t{1});
  at_least("min_columns", table.min_columns, std::int64_t{1});
  if (table.num_rows > kMostPlannedBytes / table.bytes_per_element / table.dim) {
    fail("num_rows: makes a table of more than 2^53 bytes");
  }
  for (const PlannerFeature& f : table.features) {
    at_least("pooling_factor", f.pooling_factor, 0.0);
    at_least("num_poolings", f.num_poolings, 0.0);
    at_least("batch_size", f.batch_size, std::int64_t{0});
  }
  at_least("zipf_exponent", table.zipf_exponent, 0.0);
  for (const int rank : table.ranks) {
    if (rank < 0 || rank >= world_size) {
      fail(fmt::format("ranks: must be between 0 and {} (got {})", world_size - 1, rank));
    }
  }
}

// Bytes that any sharding of the table may take on one rank: rows and their state, and the ids and
// vectors of every rank's batch.
double most_bytes(const PlannerTable& table, const PlannerModel& model, double world_size) {
  const auto row = static_cast<double>(table.dim * std::max(table.bytes_per_element, kWordBytes));
  double ids = 0;
  for (const PlannerFeature& f : table.features) {
    const auto samples = static_cast<double>(f.batch_size > 0 ? f.batch_size : model.batch_size);
    ids += std::max(1.0, f.pooling_factor) * f.num_poolings * samples;
  }
  constexpr double kMostState = 4;  // rows with their own state
  constexpr double kIdWords = 16;
  return kMostState * static_cast<double>(table.num_rows) * row +
         ids * world_size * (kIdWords * kWordBytes + 2 * row);
}

// Sums of bytes over tables on a rank, and over the ranks of a table, fit 64 bits.
void check_sizes(const PlannerModel& model, int world_size) {
  constexpr double kMost = 0x1p62;
  double sum = 0;
  for (const PlannerTable& table : model.tables) {
    const double bytes = most_bytes(table, model, world_size);
    sum += bytes;
    if (bytes * world_size < kMost && sum < kMost) continue;
    throw usage_error(
        fmt::format("planner: table \"{}\": its rows, or what features and batch_size look up in "
                    "it, take up to "
                    "{:.1e} bytes on each of {} ranks (more than 64 bits count)",
                    table.name, bytes, world_size));
  }
}

}  // namespace

void check_planner_input(const PlannerModel& model, const PlannerTopology& t) {
  const auto fail = [](const std::string& problem) {
    throw usage_error("planner: topology: " + problem);
  };
  if (t.world_size < 1) fail(fmt::format("world_size: must be at least 1 (got {})", t.world_size));
  if (t.ranks_per_node < 1 || t.world_size % t.ranks_per_node != 0) {
    fail(fmt::format("ranks_per_node: must divide the {} ranks (got {})", t.world_size,
                     t.ranks_per_node));
  }
  for (const auto* bytes : {&t.device_bytes, &t.host_bytes}) {
    if (std::ssize(*bytes) != t.world_size) fail("memory: must be given for each rank");
  }
  for (const double bandwidth : {t.device_bandwidth, t.host_bandwidth, t.host_link_bandwidth,
                                 t.intra_node_bandwidth, t.inter_node_bandwidth}) {
    if (!(bandwidth > 0) || !std::isfinite(bandwidth)) fail("bandwidths: must be more than 0");
  }
  for (const double value :
       {t.intra_node_latency, t.inter_node_latency, t.lookup_bandwidth, t.update_bandwidth}) {
    if (!(value >= 0) || !std::isfinite(value)) {
      fail("latencies and bandwidths of random rows: must be at least 0");
    }
  }
  if (!(t.reserve >= 0 && t.reserve < 1)) fail("reserve: must be from 0 to less than 1");
  if (model.dense_bytes < 0 || model.dense_bytes > kMostPlannedBytes) {
    throw usage_error(
        fmt::format("planner: dense_bytes: must be from 0 to 2^53 (got {})", model.dense_bytes));
  }
  if (model.batch_size < 1) {
    throw usage_error(
        fmt::format("planner: batch_size: must be at least 1 (got {})", model.batch_size));
  }
  std::set<std::string> names;
  for (const PlannerTable& table : model.tables) {
    check_table(table, t.world_size);
    if (!names.insert(table.name).second) {
      throw usage_error(fmt::format("planner: table \"{}\": name: appears twice", table.name));
    }
  }
  check_sizes(model, t.world_size);
}

}  // namespace serrate
