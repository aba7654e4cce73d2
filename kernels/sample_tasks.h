#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "kernels/host_batch.h"
#include "kernels/output_path.h"
#include "serrate/stream.h"

// How the CPU kernels over a MatrixBatch share samples among threads.
namespace serrate {

/// Rows or columns [begin, end) of a sample.
struct SampleTask {
  std::int64_t sample, begin, end;
};

/// For ops that compute: samples cut into blocks of `block` of their size(b) rows or columns. Those
/// with most work(b) come first, so that the last thread to finish has a short one.
template <typename Size, typename Work>
std::vector<SampleTask> longest_first(std::int64_t batch_size, std::int64_t block, int num_threads,
                                      const Size& size, const Work& work) {
  std::vector<SampleTask> tasks;
  tasks.reserve(batch_size);
  const auto cut = [&](std::int64_t b) {
    const std::int64_t total = size(b);
    for (std::int64_t begin = 0; begin < total; begin += block) {
      tasks.push_back({b, begin, std::min(begin + block, total)});
    }
  };
  if (num_threads == 1) {
    for (std::int64_t b = 0; b < batch_size; ++b) cut(b);
    return tasks;
  }
  std::vector<std::pair<std::int64_t, std::int64_t>> order;  // -work, sample
  order.reserve(batch_size);
  for (std::int64_t b = 0; b < batch_size; ++b) order.emplace_back(-work(b), b);
  std::ranges::sort(order);
  for (const auto& [minus_work, b] : order) cut(b);
  return tasks;
}

/// For ops that move memory: f(b, begin, end) for runs of rows [begin, end) of sample b that cover
/// all rows of the batch. Threads take chunks of about equal size, wherever samples end in them.
template <typename F>
void for_each_run(const HostBatch<const float>& batch, const Stream& stream, const F& f) {
  constexpr std::int64_t kChunkValues = 32 * 1024;
  const auto offsets = batch.row_offsets;
  const auto first_row = [&](std::int64_t b) {
    return offsets.empty() ? b * batch.rows : offsets[b];
  };
  const std::int64_t begin = first_row(0), rows = first_row(batch.batch_size) - begin;
  const std::int64_t chunks =
      std::clamp<std::int64_t>(count_values(batch) / kChunkValues, 1, rows + 1);
#pragma omp parallel for num_threads(stream.num_threads()) schedule(dynamic)
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
    std::int64_t row = begin + rows * chunk / chunks;
    const std::int64_t end = begin + rows * (chunk + 1) / chunks;
    std::int64_t b = offsets.empty() ? row / std::max<std::int64_t>(batch.rows, 1)
                                     : std::ranges::upper_bound(offsets, row) - offsets.begin() - 1;
    for (; row < end; ++b) {
      const std::int64_t last = std::min(first_row(b + 1), end);
      if (row < last) f(b, row - first_row(b), last - first_row(b));
      row = last;
    }
  }
}

}  // namespace serrate
