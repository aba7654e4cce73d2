#include "src/run/calibrate.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <span>
#include <vector>

#include "serrate/kernels/embedding_lookup.h"
#include "serrate/kernels/embedding_update.h"
#include "serrate/random.h"
#include "src/run/machines.h"

namespace serrate {
namespace {

using Clock = std::function<std::chrono::nanoseconds()>;

constexpr int kRepeats = 31;
constexpr std::int64_t kCopyBytes = 32 << 20;
constexpr std::int64_t kMessageBytes = 1 << 20;
constexpr std::int64_t kTableBytes = 256 << 20;
constexpr std::int64_t kDim = 128;
constexpr std::int64_t kNumIds = 1 << 17;
constexpr std::int64_t kIdsPerBag = 8;
constexpr std::int64_t kRowBytes = kDim * sizeof(float);
constexpr std::int64_t kWordBytes = sizeof(std::int64_t);

// ms of the slowest rank, the lower quartile of several times: what else a machine does makes times
// longer, never shorter.
double time_of(const Clock& clock, Communicator& communicator, const std::function<void()>& work) {
  std::vector<double> times;
  for (int i = 0; i <= kRepeats; ++i) {
    communicator.barrier("calibration");
    const std::chrono::nanoseconds begin = clock();
    work();
    const auto all = communicator.gather_int64("calibration time", (clock() - begin).count());
    const auto slowest = static_cast<double>(*std::ranges::max_element(all)) * 1e-6;
    if (i > 0) times.push_back(slowest);  // the first one finds memory
  }
  std::ranges::nth_element(times, times.begin() + kRepeats / 4);
  return times[kRepeats / 4];
}

// Bytes read and written per ms.
double copy_bandwidth(const Clock& clock, Communicator& communicator, const Stream& stream) {
  const Buffer<std::byte> from(std::vector<std::byte>(kCopyBytes, std::byte{1}), stream);
  Buffer<std::byte> to(kCopyBytes, stream);
  const double ms = time_of(clock, communicator, [&] {
    copy<std::byte>(from.span(), to.span(), stream);
    stream.synchronize();
  });
  return 2 * kCopyBytes / ms;
}

// The part of a measured time that is not accounted for: never so little that noise decides.
double rest_of(double ms, double accounted) {
  return std::max(ms - accounted, ms / 2);
}

// Lookup and update of random rows, each once, of a table that no cache holds.
class TableWork {
 public:
  TableWork(int world_size, const Stream& stream)
      : num_rows_(std::max<std::int64_t>(kTableBytes / world_size / kRowBytes, kNumIds)),
        table_(
            Buffer<float>::zeros(num_rows_ * kDim, stream)),  // memory never written is not there
        state_(Buffer<float>::zeros(num_rows_, stream)),
        rows_(Buffer<float>::zeros(kNumIds / kIdsPerBag * kDim, stream)),
        ids_(make_ids(), stream),
        offsets_(make_offsets(), stream) {}

  // Bytes of rows per ms.
  double lookup_bandwidth(double memory, const Clock& clock, Communicator& communicator,
                          const Stream& stream) {
    const LookupSegment segment{.table = table(),
                                .indices = ids_.span(),
                                .offsets = offsets_.span(),
                                .weights = {},
                                .output = bags()};
    const double ms = time_of(clock, communicator, [&] {
      embedding_lookup({&segment, 1}, stream);
      stream.synchronize();
    });
    constexpr std::int64_t kBags = kNumIds / kIdsPerBag;
    const double streamed = (kNumIds + kBags) * kWordBytes + kBags * kRowBytes;
    return kNumIds * kRowBytes / rest_of(ms, streamed / memory);
  }

  // Bytes of rows and their state read and written per ms.
  double update_bandwidth(double memory, const Clock& clock, Communicator& communicator,
                          const Stream& stream) {
    const GradientSegment segment{ids_.span(), offsets_.span(), {}, bags()};
    const EmbeddingUpdate update{.table = table(),
                                 .state = state_.matrix(num_rows_, 1),
                                 .second_moment = {},
                                 .segments = {&segment, 1},
                                 .optimizer = {.type = SparseOptimizer::kRowWiseAdagrad}};
    RowGroups groups;
    group_gradients(update.segments, num_rows_, groups, stream);
    const double ms = time_of(clock, communicator, [&] {
      embedding_update(update, groups, {}, 0, stream);
      stream.synchronize();
    });
    constexpr std::int64_t kLineBytes = 64;  // of a row's state
    const auto distinct = static_cast<double>(groups.num_rows.to_host(stream)[0]);
    constexpr std::int64_t kGradientBytes = kNumIds / kIdsPerBag * kRowBytes;
    return distinct * 2 * (kRowBytes + kLineBytes) / rest_of(ms, kGradientBytes / memory);
  }

 private:
  std::vector<std::int64_t> make_ids() const {
    std::vector<std::int64_t> ids(kNumIds);
    for (std::int64_t i = 0; i < kNumIds; ++i) {
      ids[i] = random_below(0, RandomUse::kGenerate, 0, i, num_rows_);
    }
    return ids;
  }
  static std::vector<std::int64_t> make_offsets() {
    std::vector<std::int64_t> offsets;
    for (std::int64_t i = 0; i <= kNumIds; i += kIdsPerBag) offsets.push_back(i);
    return offsets;
  }
  DeviceMatrix<float> table() { return table_.matrix(num_rows_, kDim); }
  DeviceMatrix<float> bags() { return rows_.matrix(kNumIds / kIdsPerBag, kDim); }

  std::int64_t num_rows_;
  Buffer<float> table_, state_, rows_;
  Buffer<std::int64_t> ids_, offsets_;
};

struct Link {
  double latency = 0;    // ms per message
  double bandwidth = 0;  // bytes per ms that a rank receives from the others
};

// The exchange of a group of ranks while all other groups have theirs. `all` times it.
Link measure_link(Communicator& group, double memory, const Clock& clock, Communicator& all,
                  const Stream& stream) {
  const std::int64_t peers = group.size() - 1;
  Buffer<float> received;
  const auto exchange = [&](std::int64_t floats) {
    const Buffer<float> sent(std::vector<float>(group.size() * floats, 1.0f), stream);
    received.resize_discard(sent.size(), stream);
    const std::vector<std::int64_t> counts(group.size(), floats);
    return time_of(clock, all, [&] {
      group.all_to_all<float>("calibration", {sent.span(), counts}, {received.span(), counts}, 1,
                              stream);
      stream.synchronize();
    });
  };
  const double small = exchange(1);
  const double large = exchange(kMessageBytes / sizeof(float));
  const double copied = kMessageBytes / memory;
  return {.latency = small / static_cast<double>(peers),
          .bandwidth = static_cast<double>(peers * kMessageBytes) / rest_of(large, small + copied)};
}

}  // namespace

PlannerTopology calibrate(int ranks_per_node, Communicator& communicator, const Stream& stream,
                          const Clock& clock) {
  const Machines machines = find_machines(communicator, stream.device());
  const int rank = communicator.rank(), world_size = communicator.size();
  PlannerTopology t = topology_of(machines, ranks_per_node);
  t.host_bandwidth = copy_bandwidth(clock, communicator, stream);
  TableWork table(world_size, stream);
  t.lookup_bandwidth = table.lookup_bandwidth(t.host_bandwidth, clock, communicator, stream);
  t.update_bandwidth = table.update_bandwidth(t.host_bandwidth, clock, communicator, stream);
  if (t.ranks_per_node > 1) {
    const auto node = communicator.split(rank / t.ranks_per_node);
    const Link link = measure_link(*node, t.host_bandwidth, clock, communicator, stream);
    t.intra_node_latency = link.latency;
    t.intra_node_bandwidth = link.bandwidth;
  }
  if (t.num_nodes() > 1) {
    const auto across = communicator.split(rank % t.ranks_per_node);
    const Link link = measure_link(*across, t.host_bandwidth, clock, communicator, stream);
    t.inter_node_latency = link.latency;
    t.inter_node_bandwidth = link.bandwidth;
  }
  return t;
}

}  // namespace serrate
