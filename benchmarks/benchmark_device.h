#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "benchmarks/benchmark_arguments.h"
#include "benchmarks/processor_time.h"
#include "serrate/buffer.h"
#include "serrate/event.h"
#include "serrate/kernels/linear.h"
#include "serrate/kernels/round_to_bfloat16.h"
#include "serrate/rank_device.h"
#include "serrate/thread_communicator.h"

namespace serrate {

/// What an op has to read and write, each byte once, and to compute.
struct BenchmarkWork {
  double bytes = 0, flops = 0;
  Precision precision = Precision::kFp32;  ///< of the operations
};

/// The device of a benchmark, and how it takes the time.
///
/// On the CPU, time is this thread's processor time. On a GPU it is taken by events. Before each
/// time, `--flush-mib` of its memory (1,024) are written: that leaves nothing of the op's in the
/// L2 cache, and keeps the GPU busy until what is timed is queued, so that launches do not count.
class BenchmarkDevice {
 public:
  /// Asks for `--device cpu|cuda|cuda:N`, by default the CPU, `--flush-mib N`, `--times N`, as
  /// often as a GPU does each case (30), and `--floor-side N`, of the product that is the floor of
  /// operations (8,192).
  explicit BenchmarkDevice(BenchmarkArguments& arguments)
      : stream_(device_of(arguments.text("--device", "cpu"))),
        flushed_(on_gpu() ? arguments.integer("--flush-mib", 1024) << 20 : 0, stream_),
        copied_(flushed_.size(), stream_),
        times_(static_cast<int>(arguments.integer("--times", 30))),
        floor_side_(arguments.integer("--floor-side", 8192)) {}

  const Stream& stream() const { return stream_; }
  int times() const { return times_; }
  bool on_gpu() const { return stream_.device().type == DeviceType::kCuda; }

  /// How long one call of f takes.
  template <typename F>
  double seconds(F&& f) {
    if (!on_gpu()) {
      const double start = processor_seconds();
      f();
      return processor_seconds() - start;
    }
    flush();
    begin_.record(stream_);
    f();
    end_.record(stream_);
    return end_.seconds_since(begin_);
  }
  /// The median of times() calls.
  template <typename F>
  double median_seconds(F&& f) {
    std::vector<double> all;
    for (int i = 0; i < times_; ++i) all.push_back(seconds(f));
    const auto median = all.begin() + times_ / 2;
    std::ranges::nth_element(all, median);
    return *median;
  }

  /// What the GPU needs at the least: to copy as many bytes, or for as many operations in a product
  /// of two square matrices, whichever is longer. Both are measured when they are first asked for.
  double floor_seconds(const BenchmarkWork& work) {
    const double copy = bytes_per_second_ == 0 ? measure_copy() : bytes_per_second_;
    if (work.flops == 0) return work.bytes / copy;
    double& flops = flops_per_second_[work.precision];
    if (flops == 0) flops = measure_product(work.precision);
    return std::max(work.bytes / copy, work.flops / flops);
  }

 private:
  static Device device_of(const std::string& text) {
    Device device;
    run_thread_ranks(1, std::chrono::minutes(1), [&](Communicator& communicator) {
      device = choose_device(device_choice_from_string(text), communicator);
    });
    return device;
  }
  void flush() {
    zero_bytes(flushed_.device_data(), static_cast<std::size_t>(flushed_.size()), stream_);
  }
  double measure_copy() {
    const double time =
        median_seconds([&] { copy<std::byte>(flushed_.span(), copied_.span(), stream_); });
    return bytes_per_second_ = 2 * static_cast<double>(flushed_.size()) / time;
  }
  double measure_product(Precision precision) {
    const std::int64_t side = floor_side_;
    // Any values but zeros: those take less power, and the GPU's clock would be higher.
    std::vector<float> values(static_cast<std::size_t>(side * side));
    std::uint32_t bits = 1;
    for (float& value : values) {
      bits = bits * 1664525 + 1013904223;
      value = static_cast<float>(bits >> 8) * 0x1p-23f - 1;
    }
    const Buffer<float> floats(values, stream_);
    const bool is_bf16 = precision == Precision::kBf16;
    Buffer<BFloat16> halves(is_bf16 ? side * side : 0, stream_), y_halves(halves.size(), stream_);
    Buffer<float> y_floats(is_bf16 ? 0 : side * side, stream_);
    InputMatrix x = floats.matrix(side, side);
    OutputMatrix y = y_floats.matrix(side, side);
    if (is_bf16) {
      round_to_bfloat16(floats.span(), halves.span(), stream_);
      x = halves.matrix(side, side);
      y = y_halves.matrix(side, side);
    }
    const double time = median_seconds([&] { linear_forward({x, x, {}, y, precision}, stream_); });
    return 2 * static_cast<double>(side * side * side) / time;
  }

  Stream stream_;
  Buffer<std::byte> flushed_, copied_;
  Event begin_{stream_.device(), EventUse::kTime}, end_{stream_.device(), EventUse::kTime};
  int times_;
  std::int64_t floor_side_;
  double bytes_per_second_ = 0;
  std::map<Precision, double> flops_per_second_;
};

}  // namespace serrate
