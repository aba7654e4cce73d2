#include "src/run/calibrate.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <utility>
#include <vector>

#include "serrate/event.h"
#include "serrate/host_buffer.h"
#include "serrate/kernels/embedding_lookup.h"
#include "serrate/kernels/embedding_update.h"
#include "serrate/random.h"
#include "sharding/files/quantity.h"
#include "src/run/machines.h"

namespace serrate {
namespace {

constexpr std::int64_t kDim = 128;
constexpr std::int64_t kIdsPerBag = 8;
constexpr std::int64_t kRowBytes = kDim * sizeof(float);
constexpr std::int64_t kWordBytes = sizeof(std::int64_t);

struct Measurement {
  Communicator& communicator;
  const CalibrationWork& work;
  const Stopwatch& stopwatch;

  // ms of a call on the slowest rank, the lower quartile of several times: what else a machine does
  // makes times longer, never shorter.
  double time_of(const Stream& stream, const std::function<void()>& call) const {
    std::vector<double> times;
    for (int i = 0; i <= work.repeats; ++i) {
      communicator.barrier("calibration");
      const double ms = stopwatch(stream, [&] {
        for (int k = 0; k < work.calls; ++k) call();
      });
      constexpr double kNanoseconds = 1e6;
      const auto all = communicator.gather_int64("calibration time",
                                                 static_cast<std::int64_t>(ms * kNanoseconds));
      const auto slowest = static_cast<double>(*std::ranges::max_element(all)) / kNanoseconds;
      if (i > 0) times.push_back(slowest / work.calls);  // the first one finds memory
    }
    const auto quartile = times.begin() + work.repeats / 4;
    std::ranges::nth_element(times, quartile);
    return *quartile;
  }
};

// Throws Error (usage) when what each rank moves is more than its part of a memory.
void check_room(std::int64_t of_rank, const SharedMemory& shared, const std::string& what) {
  for (int number = 0; number < std::ssize(shared.memory); ++number) {
    const std::int64_t num_ranks = shared.num_ranks(number);
    const std::int64_t available = shared.memory[number].available;
    if (of_rank <= available / num_ranks) continue;
    throw usage_error(fmt::format(
        "calibration moves up to {} on each of the {} ranks of one {}, which has {} to give: give "
        "it fewer ranks",
        format_bytes(of_rank), num_ranks, what, format_bytes(available)));
  }
}

void check_room(const Machines& machines, const PlannerTopology& t, const CalibrationWork& work) {
  // Of an id: its part of a bag and of an offset, itself, and six words of groups in Buffers, which
  // have a quarter more.
  constexpr std::int64_t kIdBytes = kRowBytes / kIdsPerBag + 9 * kWordBytes;
  const std::int64_t rows = std::max(work.table_bytes / t.world_size, work.num_ids * kRowBytes);
  const std::int64_t state = rows / kDim;
  const std::int64_t message = work.message_bytes * std::max(t.ranks_per_node, t.num_nodes());
  const std::int64_t exchanged = message + message * 5 / 4;  // sent, and received with that quarter
  const std::int64_t of_rank =
      std::max(2 * work.copy_bytes, rows + state + work.num_ids * kIdBytes + exchanged);
  if (machines.device_type() == DeviceType::kCpu) {
    return check_room(of_rank, machines.host, "machine");
  }
  check_room(of_rank, machines.gpus, "GPU");
  // One after another: two buffers, a pinned one for the link, what is sent on its way to the GPU.
  check_room(std::max(2 * work.host_copy_bytes, message), machines.host, "machine");
}

// Bytes read and written per ms.
double copy_bandwidth(std::int64_t bytes, const Measurement& measured, const Stream& stream) {
  const auto from = Buffer<std::byte>::zeros(bytes, stream);  // memory never written is not there
  Buffer<std::byte> to(bytes, stream);
  const double ms =
      measured.time_of(stream, [&] { copy<std::byte>(from.span(), to.span(), stream); });
  return static_cast<double>(2 * bytes) / ms;
}

// Bytes per ms between a GPU and pinned memory of its machine, in the slower direction.
double host_link_bandwidth(std::int64_t bytes, const Measurement& measured, const Stream& stream) {
  HostBuffer<std::byte> host(bytes, stream.device());
  std::ranges::fill(host.span(), std::byte{1});
  Buffer<std::byte> device(bytes, stream);
  const double there =
      measured.time_of(stream, [&] { copy_async(host, 0, device.span(), stream); });
  const double back =
      measured.time_of(stream, [&] { copy_async(std::as_const(device).span(), host, 0, stream); });
  return static_cast<double>(bytes) / std::max(there, back);
}

// The part of a measured time that is not accounted for: never so little that noise decides.
double rest_of(double ms, double accounted) {
  return std::max(ms - accounted, ms / 2);
}

// Lookup and update of random rows, each once, of a table that no cache holds.
class TableWork {
 public:
  TableWork(const CalibrationWork& work, int world_size, const Stream& stream)
      : num_ids_(work.num_ids),
        num_bags_(num_ids_ / kIdsPerBag),
        num_rows_(std::max<std::int64_t>(work.table_bytes / world_size / kRowBytes, num_ids_)),
        table_(Buffer<float>::zeros(num_rows_ * kDim, stream)),
        state_(Buffer<float>::zeros(num_rows_, stream)),
        rows_(Buffer<float>::zeros(num_bags_ * kDim, stream)),
        ids_(make_ids(), stream),
        offsets_(make_offsets(), stream) {}

  // Bytes of rows per ms.
  double lookup_bandwidth(double memory, const Measurement& measured, const Stream& stream) {
    const LookupSegment segment{.table = table(),
                                .indices = ids_.span(),
                                .offsets = offsets_.span(),
                                .weights = {},
                                .output = bags()};
    const double ms = measured.time_of(stream, [&] { embedding_lookup({&segment, 1}, stream); });
    const auto streamed =
        static_cast<double>((num_ids_ + num_bags_) * kWordBytes + num_bags_ * kRowBytes);
    return static_cast<double>(num_ids_ * kRowBytes) / rest_of(ms, streamed / memory);
  }

  // Bytes of rows and their state read and written per ms.
  double update_bandwidth(double memory, const Measurement& measured, const Stream& stream) {
    const GradientSegment segment{ids_.span(), offsets_.span(), {}, bags()};
    const EmbeddingUpdate update{.table = table(),
                                 .state = state_.matrix(num_rows_, 1),
                                 .second_moment = {},
                                 .segments = {&segment, 1},
                                 .optimizer = {.type = SparseOptimizer::kRowWiseAdagrad}};
    RowGroups groups;
    group_gradients(update.segments, num_rows_, groups, stream);
    const double ms =
        measured.time_of(stream, [&] { embedding_update(update, groups, {}, 0, stream); });
    constexpr std::int64_t kLineBytes = 64;  // of a row's state
    std::vector<std::int64_t> ids = make_ids();
    std::ranges::sort(ids);
    const auto distinct = static_cast<double>(std::ranges::unique(ids).begin() - ids.begin());
    const auto gradients = static_cast<double>(num_bags_ * kRowBytes);
    return distinct * 2 * (kRowBytes + kLineBytes) / rest_of(ms, gradients / memory);
  }

 private:
  std::vector<std::int64_t> make_ids() const {
    std::vector<std::int64_t> ids(num_ids_);
    for (std::int64_t i = 0; i < num_ids_; ++i) {
      ids[i] = random_below(0, RandomUse::kGenerate, 0, i, num_rows_);
    }
    return ids;
  }
  std::vector<std::int64_t> make_offsets() const {
    std::vector<std::int64_t> offsets;
    for (std::int64_t i = 0; i <= num_ids_; i += kIdsPerBag) offsets.push_back(i);
    return offsets;
  }
  DeviceMatrix<float> table() { return table_.matrix(num_rows_, kDim); }
  DeviceMatrix<float> bags() { return rows_.matrix(num_bags_, kDim); }

  std::int64_t num_ids_, num_bags_, num_rows_;
  Buffer<float> table_, state_, rows_;
  Buffer<std::int64_t> ids_, offsets_;
};

struct Link {
  double latency = 0;    // ms per message
  double bandwidth = 0;  // bytes per ms that a rank receives from the others
};

// The exchange of a group of ranks while all other groups have theirs.
Link measure_link(Communicator& group, double memory, const Measurement& measured,
                  const Stream& stream) {
  const auto peers = static_cast<double>(group.size() - 1);
  const auto message = static_cast<double>(measured.work.message_bytes);
  Buffer<float> received;
  const auto exchange = [&](std::int64_t floats) {
    const Buffer<float> sent(std::vector<float>(group.size() * floats, 1.0f), stream);
    received.resize_discard(sent.size(), stream);
    const std::vector<std::int64_t> counts(group.size(), floats);
    return measured.time_of(stream, [&] {
      group.all_to_all<float>("calibration", {sent.span(), counts}, {received.span(), counts}, 1,
                              stream);
    });
  };
  const double small = exchange(1);
  const double large = exchange(measured.work.message_bytes / sizeof(float));
  return {.latency = small / peers,
          .bandwidth = peers * message / rest_of(large, small + message / memory)};
}

}  // namespace

CalibrationWork calibration_work(DeviceType device) {
  constexpr std::int64_t kMiB = 1 << 20;
  if (device == DeviceType::kCpu) {
    return {.copy_bytes = 32 * kMiB,
            .host_copy_bytes = 0,
            .table_bytes = 256 * kMiB,
            .num_ids = 1 << 17,
            .message_bytes = kMiB,
            .repeats = 31,
            .calls = 1};
  }
  return {.copy_bytes = 1024 * kMiB,
          .host_copy_bytes = 256 * kMiB,
          .table_bytes = 4096 * kMiB,
          .num_ids = 1 << 20,
          .message_bytes = 64 * kMiB,
          .repeats = 15,
          .calls = 4};
}

double milliseconds_of(const Stream& stream, const std::function<void()>& work) {
  if (stream.device().type == DeviceType::kCpu) {
    const auto begin = std::chrono::steady_clock::now();
    work();
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin)
        .count();
  }
  Event begin(stream.device(), EventUse::kTime), end(stream.device(), EventUse::kTime);
  begin.record(stream);
  work();
  end.record(stream);
  return 1e3 * end.seconds_since(begin);
}

PlannerTopology calibrate(int ranks_per_node, Communicator& communicator, const Stream& stream,
                          const CalibrationWork& work, const Stopwatch& stopwatch) {
  const Machines machines = find_machines(communicator, stream.device());
  const Measurement measured{communicator, work, stopwatch};
  const int rank = communicator.rank(), world_size = communicator.size();
  PlannerTopology t = topology_of(machines, ranks_per_node);
  check_room(machines, t, work);
  const double memory = copy_bandwidth(work.copy_bytes, measured, stream);
  if (machines.device_type() == DeviceType::kCuda) {
    t.device_bandwidth = memory;
    const Stream host(Device::cpu(), stream.num_threads());
    t.host_bandwidth = copy_bandwidth(work.host_copy_bytes, measured, host);
    t.host_link_bandwidth = host_link_bandwidth(work.host_copy_bytes, measured, stream);
  } else {
    t.host_bandwidth = memory;
  }
  TableWork table(work, world_size, stream);
  t.lookup_bandwidth = table.lookup_bandwidth(memory, measured, stream);
  t.update_bandwidth = table.update_bandwidth(memory, measured, stream);
  if (t.ranks_per_node > 1) {
    const auto node = communicator.split(rank / t.ranks_per_node);
    const Link link = measure_link(*node, memory, measured, stream);
    t.intra_node_latency = link.latency;
    t.intra_node_bandwidth = link.bandwidth;
  }
  if (t.num_nodes() > 1) {
    const auto across = communicator.split(rank % t.ranks_per_node);
    const Link link = measure_link(*across, memory, measured, stream);
    t.inter_node_latency = link.latency;
    t.inter_node_bandwidth = link.bandwidth;
  }
  return t;
}

}  // namespace serrate
