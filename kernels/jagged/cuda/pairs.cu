#include "kernels/jagged/cuda/offsets.cuh"
#include "kernels/jagged/cuda/runs.cuh"
#include "serrate/kernels/jagged_pairs.h"

namespace serrate {
namespace {

__device__ std::int64_t length(const std::int64_t* offsets, std::int64_t b) {
  return offsets[b + 1] - offsets[b];
}

// Rows and columns of what a sequence's subtraction gives.
__device__ std::int64_t num_differences(const std::int64_t* offsets, std::int64_t b) {
  const std::int64_t times = length(offsets, b);
  return times > 0 ? times - 1 : 0;
}

struct NumPairs {
  const std::int64_t *row_offsets, *col_offsets;
  __device__ std::int64_t operator()(std::int64_t b) const {
    return length(row_offsets, b) * length(col_offsets, b);
  }
};

struct NumDifferences {
  const std::int64_t* offsets;
  __device__ std::int64_t operator()(std::int64_t b) const {
    const std::int64_t size = num_differences(offsets, b);
    return size * size;
  }
};

// A row of z for each time of a run but a sequence's last.
struct Subtract {
  const std::int64_t *x, *offsets;
  std::int64_t* z;
  const std::int64_t* z_offsets;

  __device__ void operator()(Run run) const {
    const std::int64_t size = num_differences(offsets, run.sample);
    const std::int64_t* const times = x + offsets[run.sample];
    std::int64_t* const to = z + z_offsets[run.sample];
    run.end = std::min(run.end, size);
    for_each_of_run<1>(run, size, [&](std::int64_t i, std::int64_t j) {
      to[i * size + j] = times[i] - times[j + 1];
    });
  }
};

}  // namespace

template <>
void pair_offsets_on<DeviceType::kCuda>(DeviceSpan<const std::int64_t> row_offsets,
                                        DeviceSpan<const std::int64_t> col_offsets,
                                        DeviceSpan<std::int64_t> offsets, const Stream& stream) {
  launch_offsets(NumPairs{row_offsets.device_data(), col_offsets.device_data()}, offsets, stream);
}

template <>
void self_subtraction_offsets_on<DeviceType::kCuda>(DeviceSpan<const std::int64_t> offsets,
                                                    DeviceSpan<std::int64_t> z_offsets,
                                                    const Stream& stream) {
  launch_offsets(NumDifferences{offsets.device_data()}, z_offsets, stream);
}

template <>
void jagged_self_subtraction_on<DeviceType::kCuda>(const JaggedSelfSubtraction& args,
                                                   const Stream& stream) {
  const Subtract subtract{args.x.device_data(), args.offsets.device_data(), args.z.device_data(),
                          args.z_offsets.device_data()};
  const auto times = MatrixBatch<const std::int64_t>::jagged(
      {args.x.device_data(), std::ssize(args.x), 1}, args.offsets);
  const dim3 block(16, 2, 8);
  constexpr int kLog2Length = 3;
  launch_runs(subtract, runs_of_rows(times, kLog2Length), block, stream);
}

}  // namespace serrate
