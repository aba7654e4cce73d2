#include <fmt/format.h>

#include "serrate/rank_device.h"
#include "src/cli/commands.h"
#include "src/cli/launch.h"
#include "src/io/text_file.h"
#include "src/run/calibrate.h"
#include "src/run/options.h"

namespace serrate::cli {
namespace {

void print_topology(const PlannerTopology& t) {
  constexpr double kGigabytesPerSecond = 1e6;  // in bytes per ms
  const auto bandwidth = [](const char* what, double bytes_per_ms) {
    fmt::print("{:<28}{:>10.2f} GB/s\n", what, bytes_per_ms / kGigabytesPerSecond);
  };
  const auto latency = [](const char* what, double ms) {
    fmt::print("{:<28}{:>10.2f} us\n", what, ms * 1e3);
  };
  const bool on_gpus = t.device == PlannerDevice::kCuda;
  fmt::print("# world_size={} device={}\n\n", t.world_size, on_gpus ? "cuda" : "cpu");
  const auto gib = [](std::int64_t bytes) { return static_cast<double>(bytes) / (1 << 30); };
  fmt::print("{} ranks, {} a node, {:.1f} GiB each\n", t.world_size, t.ranks_per_node,
             gib((on_gpus ? t.device_bytes : t.host_bytes).front()));
  if (on_gpus) {
    bandwidth("GPU memory (read + write)", t.device_bandwidth);
    bandwidth("host memory (read + write)", t.host_bandwidth);
    bandwidth("GPU to or from host", t.host_link_bandwidth);
  } else {
    bandwidth("memory (read + write)", t.host_bandwidth);
  }
  bandwidth("lookup of random rows", t.lookup_bandwidth);
  bandwidth("update of random rows", t.update_bandwidth);
  if (t.ranks_per_node > 1) {
    bandwidth("exchange within a node", t.intra_node_bandwidth);
    latency("message within a node", t.intra_node_latency);
  }
  if (t.num_nodes() > 1) {
    bandwidth("exchange between nodes", t.inter_node_bandwidth);
    latency("message between nodes", t.inter_node_latency);
  }
}

}  // namespace

int calibrate_command(const Arguments& arguments) {
  std::string output, device = "auto";
  int ranks_per_node = 0, threads = 1;
  LaunchOptions launch_options;
  Options line("calibrate",
               "Measures the machines of its ranks, all at work at once, and writes what the "
               "planner needs to know of them.");
  line.add(option("output", output, "topology file to write").with_letter('o').required().output());
  line.add(option("ranks-per-node", ranks_per_node,
                  "consecutive ranks that share a node; 0: those of a machine", {0, 1'000'000}));
  line.add(option("threads", threads, "OpenMP threads of a rank", {1, 1024}));
  line.add(device_option(device));
  add_launch_options(line, launch_options);
  if (!line.parse(arguments)) return 0;

  launch_options.threads = threads;
  launch_options.device = device;
  return launch(launch_options, [&](Communicator& communicator) {
    if (ranks_per_node > 0 && communicator.size() % ranks_per_node != 0) {
      throw usage_error(fmt::format("--ranks-per-node must divide the {} ranks (got {})",
                                    communicator.size(), ranks_per_node));
    }
    const Stream stream(choose_device(device_choice_from_string(device), communicator), threads);
    const PlannerTopology topology =
        calibrate(ranks_per_node, communicator, stream, calibration_work(stream.device().type));
    if (communicator.rank() > 0) return 0;
    write_text_file(output, planner_topology_to_json(topology));
    print_topology(topology);
    return 0;
  });
}

}  // namespace serrate::cli
